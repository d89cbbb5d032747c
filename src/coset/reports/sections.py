"""A page made of sections: text, tables, plots, pictures; for results that are not predictions for graphs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coset.reports.page import Figures, render, write_page
from coset.reports.plots import Panel


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers; numbers are set right and sort by value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
    caption: str = ""


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
class Section:
    """A headed part of a page; what is empty is left out."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    panels: Sequence[Panel] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = field(default=())


def write_sections(
    path: Path,
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    facts: Mapping[str, str] | None = None,
    command: str = "",
    recipe: str = "",
) -> Path:
    """Write a page of sections: one file that opens offline.

    Args:
        path: The file.
        title: Heading of the page.
        sections: In order.
        lead: A sentence under the heading.
        facts: Names and values under it, e.g. ``{"seed": "0"}``.
        command: What to type to get the same; for a run its recipe.
        recipe: Text of ``recipe.yaml``, in which seed and overrides are settled.

    Raises:
        CosetError: The page cannot be written.
    """
    figures = Figures()
    shown = [
        {
            "title": section.title,
            "text": section.text,
            "tables": section.tables,
            "figures": [figures.add(panel) for panel in section.panels],
            "pictures": [
                {"title": p.title, "source": _data_uri(p.pixels), "width": p.pixels.shape[1] * p.scale}
                for p in section.pictures
            ],
            "notes": section.notes,
        }
        for section in sections
    ]
    html = render(
        "sections.html.j2",
        ("page.js",),
        title=title,
        lead=lead,
        facts=dict(facts or {}),
        sections=shown,
        command=command or ("coset run recipe.yaml" if recipe else ""),
        recipe=recipe,
        figures=figures.specifications,
    )
    return write_page(path, html)


def _data_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
