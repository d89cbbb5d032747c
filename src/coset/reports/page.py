"""The shell of a page: one file that holds its style, its scripts, Plotly and all data, and asks no network."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from coset.core.files import write_text
from coset.reports.plots import Panel
from coset.reports.scores import duration, label, number, score


def render(template: str, scripts: tuple[str, ...], **context: Any) -> str:
    """Fill a template of ``static/``; everything of the user's is escaped by Jinja.

    Args:
        template: File in ``static/`` of this package, or ``package:file`` for that of another.
        scripts: Files to inline, in order, named alike.
        context: Variables of the template.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(_static("report.css")),
            scripts=[Markup(_static(name)) for name in scripts],
            plotly=Markup(get_plotlyjs()),
            **context,
        )
    )


def write_page(path: Path, html: str) -> Path:
    """Write a page whole or not at all.

    Raises:
        CosetError: The folder is missing or cannot be written.
    """
    write_text(path, html)
    return path


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
    package, _, file = name.rpartition(":")
    return resources.files(package or "coset.reports").joinpath("static", file).read_text(encoding="utf-8")
