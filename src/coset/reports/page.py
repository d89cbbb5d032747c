"""The shell of a page: one file that holds its style, scripts, what draws its figures and all data; no network."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from coset.reports.figures import Panel
from coset.reports.scores import duration, label, number, score


def render(*, scripts: Sequence[str], styles: Sequence[str], plotly: bool, **context: Any) -> str:
    """Fill the page; everything of the user's is escaped by Jinja.

    Args:
        scripts: Files to inline, in order: ``package:file`` in the folder ``static`` of a package.
        styles: Style sheets to inline, named alike.
        plotly: Whether Plotly is inlined too.
        context: Variables of ``static/page.html.j2``.
    """
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            styles=[Markup(_static(name)) for name in ("report.css", *styles)],
            scripts=[Markup(_static(name)) for name in ("page.js", "tables.js", *scripts)],
            plotly=_packed("plotly.js.gz") if plotly else "",
            **context,
        )
    )


def fragment(template: str, macro: str, **arguments: Any) -> Markup:
    """A part of a page.

    Args:
        template: ``package:file`` in the folder ``static`` of a package.
        macro: Of the template.
        arguments: Of the macro.
    """
    return getattr(_environment().get_template(template).module, macro)(**arguments)


def head(title: str, kind: str, verdict: str, lead: str = "") -> tuple[str, str]:
    """The style of all pages, and what stands first on each: for pages that are not made of sections.

    Args:
        title: Heading of the page.
        kind: What sort of page it is.
        verdict: What came out, in a sentence.
        lead: A sentence under it.
    """
    top = fragment("parts.html.j2", "top", title=title, kind=kind, verdict=verdict, lead=lead, facts={})
    return _static("report.css"), str(top)


class Figures:
    """Collects the figures of a page; templates place them by key."""

    def __init__(self) -> None:
        self.specifications: dict[str, Any] = {}

    def add(self, panel: Panel) -> dict[str, Any]:
        """Keep a figure; returns what the template needs to place it."""
        key = f"figure-{len(self.specifications)}"
        # How figures look is the page's business: Plotly's own template goes.
        specification = json.loads(panel.figure.to_json())
        specification["layout"].pop("template", None)
        self.specifications[key] = specification
        return {"key": key, "title": panel.title, "note": panel.note}


def script_json(value: Any) -> Markup:
    """JSON for a ``<script type="application/json">``: nothing in it can end the element, NaN is null."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_static), autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": number,
        "label": label,
        "duration": duration,
        "score": score,
        "script_json": script_json,
    }
    return environment


def _static(name: str) -> str:
    return _file(name).read_text(encoding="utf-8")


@cache
def _packed(name: str) -> str:
    """A packed file as text: a third of what it would take unpacked (``page.js`` unpacks it)."""
    return base64.b64encode(_file(name).read_bytes()).decode("ascii")


def _file(name: str) -> Traversable:
    package, _, file = name.rpartition(":")
    return resources.files(package or "coset.reports").joinpath("static", file)
