"""A page made of sections: text, tables, plots, pictures, and what a domain draws itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from coset.core.files import write_text
from coset.reports import plots
from coset.reports.figures import Panel
from coset.reports.page import Figures, fragment, render


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers; numbers are set right and sort by value. If searchable, a field filters the rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
    caption: str = ""
    searchable: bool = False


@dataclass(frozen=True)
class Picture:
    """An image with what a screen reader says about it.

    Attributes:
        pixels: ``[height, width]`` or ``[height, width, 3]``, uint8.
        title: Shown below it.
        scale: Pixels of the screen for one of the image.
    """

    pixels: np.ndarray
    title: str
    scale: int = 1


@dataclass(frozen=True)
class Widget:
    """What a domain draws itself in a section.

    Attributes:
        body: Markup; of :func:`coset.reports.page.fragment`, which escapes what is the user's.
        scripts: Files to inline, ``package:file`` in the folder ``static`` of a package.
        styles: Style sheets, named alike.
        data: What scripts read, by the id of its element.
        plotly: Whether a script draws with Plotly.
    """

    body: Markup
    scripts: Sequence[str] = ()
    styles: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    plotly: bool = False


@dataclass(frozen=True)
class Section:
    """A headed part of a page; what is empty is left out.

    Attributes:
        title: Its heading.
        text: A paragraph; markup only if it is :class:`markupsafe.Markup`.
        tables: After the text and the widget.
        panels: Figures, after the tables.
        pictures: After the figures.
        notes: At the end.
        widget: After the text.
        anchor: The id by which it is linked; its number by default.
        short: What it is called in the line of sections; its title by default.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    panels: Sequence[Panel] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    widget: Widget = field(default=Widget(Markup()))
    anchor: str = ""
    short: str = ""


def write_sections(
    path: Path,
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    facts: Mapping[str, str] | None = None,
    command: str = "",
    recipe: str = "",
    how: str = "",
    versions: Mapping[str, Any] | None = None,
    kind: str = "report",
    verdict: str = "",
    controls: str = "",
    footer: str = "",
    figures: Figures | None = None,
) -> Path:
    """Write a page of sections: one file that opens offline, whole or not at all.

    Args:
        path: The file.
        title: Heading of the page.
        sections: In order.
        lead: A sentence under the heading.
        facts: Names and values under it, e.g. ``{"seed": "0"}``.
        command: What to type to get the same; for a run its recipe.
        recipe: Text of ``recipe.yaml``, in which seed and overrides are settled.
        how: A sentence about both.
        versions: Of what the results depend on.
        kind: What sort of page it is, e.g. ``comparison``: beside the title of the window and above the heading.
        verdict: What came out, in a sentence: before everything else.
        controls: Markup beside the line of sections.
        footer: The last line; by default that the page may be passed on.
        figures: That widgets have placed already.

    Raises:
        CosetError: The page cannot be written.
    """
    figures = figures or Figures()
    html = render(
        title=title, kind=kind, lead=lead, verdict=verdict, facts=dict(facts or {}), controls=controls, footer=footer,
        sections=[_shown(section, place, figures) for place, section in enumerate(sections, start=1)],
        command=command or ("coset run recipe.yaml" if recipe else ""), recipe=recipe, how=how, versions=versions,
        **_needs([section.widget for section in sections], figures),
    )  # fmt: skip
    write_text(path, html)
    return path


def training_section(history: pd.DataFrame, best_epoch: int | None = None) -> Section:
    """Curves of ``history.csv``: an epoch a row, columns ``train_...`` and ``val_...``."""
    text = "One point an epoch."
    if best_epoch is not None:
        text = (
            f"The dotted line marks epoch {best_epoch}, the best on validation; everything else on this page comes "
            "from its weights."
        )
    return Section("Training", text, panels=plots.training_curves(history, best_epoch), anchor="training")


def certificate_section(claims: Sequence[Mapping[str, Any]]) -> Section:
    """A row a claim of ``certificate.json``."""
    text = Markup(
        "The trained network was applied to moved inputs, and its outputs compared with moved outputs. Rounding alone "
        "leaves about 10<sup>−13</sup> in float64."
    )
    table = fragment("parts.html.j2", "certificate", claims=claims)
    return Section("Symmetry certificate", text, widget=Widget(table), anchor="symmetry", short="Symmetry")


def _shown(section: Section, place: int, figures: Figures) -> dict[str, Any]:
    """A section as the template reads it."""
    return {
        "title": section.title,
        "short": section.short or section.title,
        "anchor": section.anchor or f"section-{place}",
        "text": section.text,
        "body": section.widget.body,
        "tables": section.tables,
        "figures": [figures.add(panel) for panel in section.panels],
        "pictures": [
            {"title": p.title, "source": _data_uri(p.pixels), "width": p.pixels.shape[1] * p.scale}
            for p in section.pictures
        ],
        "notes": section.notes,
    }


def _needs(widgets: Sequence[Widget], figures: Figures) -> dict[str, Any]:
    """What widgets and figures need on a page: data, scripts, styles, Plotly."""
    return {
        "figures": figures.specifications,
        "data": {name: value for widget in widgets for name, value in widget.data.items()},
        "scripts": _once(name for widget in widgets for name in widget.scripts),
        "styles": _once(name for widget in widgets for name in widget.styles),
        "plotly": bool(figures.specifications) or any(widget.plotly for widget in widgets),
    }


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _data_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
