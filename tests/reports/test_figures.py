import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coset.reports import Axis, Rule, bars, box, contours, figure, heat_map, histogram, line, points, side_by_side
from coset.reports.plots import training_curves


def drawn(made: Any) -> dict[str, Any]:
    """Traces and layout as the page gets them."""
    value = json.loads(made.to_json())
    value["layout"].pop("template", None)
    return value


def test_axes_are_what_was_asked_for() -> None:
    x = Axis("steps", ticks=[1, 2], categories=True)
    y = Axis("loss", log=True, decades=True, range=[-3, 0], square=True)
    layout = drawn(figure(line([1, 2], [0.1, 0.01]), x=x, y=y, legend=False, height=200, together=True))["layout"]
    assert layout["xaxis"] == {"title": {"text": "steps"}, "type": "category", "tickvals": [1, 2]}
    assert layout["yaxis"] == {
        "title": {"text": "loss"}, "type": "log", "dtick": 1, "range": [-3, 0], "constrain": "domain",
        "scaleanchor": "x",
    }  # fmt: skip
    assert (layout["showlegend"], layout["height"], layout["hovermode"]) == (False, 200, "x unified")


def test_what_is_not_said_is_left_to_the_page() -> None:
    made = drawn(figure(line([0, 1], [1, 0]), y=Axis(reversed=True, from_zero=True)))
    assert made["data"] == [{"type": "scatter", "mode": "lines", "x": [0, 1], "y": [1, 0]}]
    assert made["layout"] == {"yaxis": {"autorange": "reversed", "automargin": True, "rangemode": "tozero"}}


NASTY = "<b>&"
SAFE = "&lt;b&gt;&amp;"


@pytest.mark.parametrize(
    "made",
    [
        figure(line([0], [0], NASTY), x=NASTY, y=NASTY),
        figure(points([NASTY], [0], NASTY, texts=[NASTY], colour=[1.0], scale=NASTY, written=True)),
        figure(bars([NASTY], [1], NASTY), rules=[Rule(y=1, text=NASTY)]),
        figure(box([1, 2], NASTY, every=True, texts=[NASTY, NASTY])),
        figure(heat_map([[1.0]], [NASTY], [NASTY], [[NASTY]])),
        figure(contours([0, 1], [0, 1], np.eye(2), NASTY)),
        side_by_side({NASTY: [line([0], [0])]}, x=NASTY),
    ],
)
def test_names_cannot_become_markup(made: Any) -> None:
    text = json.dumps(drawn(made))
    assert NASTY not in text
    assert SAFE in text


def test_hover_is_off_only_where_asked() -> None:
    silent, told = drawn(figure(line([0], [0], hover=""), points([0], [0], hover="%{y}")))["data"]
    assert (silent["hoverinfo"], "hovertemplate" in silent) == ("skip", False)
    assert (told["hovertemplate"], "hoverinfo" in told) == ("%{y}", False)


def test_figures_beside_one_another_share_the_axis_upwards() -> None:
    made = drawn(side_by_side({"a": [line([1], [2])], "b": [line([1], [3])]}, x=Axis("n", log=True), legend="beside"))
    assert [trace["xaxis"] for trace in made["data"]] == ["x", "x2"]
    assert made["layout"]["yaxis2"]["matches"] == "y"
    assert (made["layout"]["xaxis"]["type"], made["layout"]["xaxis2"]["type"]) == ("log", "log")
    assert made["layout"]["legend"]["orientation"] == "v"


def test_columns_of_tables_are_taken_as_they_come() -> None:
    pandas = pytest.importorskip("pandas")
    made = figure(histogram(pandas.Series([1.0, 2.0]), bins=3), points(pandas.Series([1]), pandas.Series([2])))
    assert list(made.data[0].x) == [1.0, 2.0]
    assert list(made.data[1].y) == [2]


@pytest.mark.parametrize(("values", "dtick"), [([0.3, 0.8], None), ([0.3, 3.0], None), ([0.02, 3.0], 1)])
def test_a_logarithmic_axis_never_has_a_single_number(values: list[float], dtick: int | None) -> None:
    """Powers of ten alone, if two lie in what is shown: 0.1 and 1, but not 1 alone, and not none."""
    layout = drawn(figure(line([0, 1], values), y=Axis("loss", log=True, decades=True)))["layout"]
    assert layout["yaxis"].get("dtick") == dtick
    assert layout["yaxis"]["type"] == "log"


def test_scores_are_never_on_a_logarithmic_axis() -> None:
    history = pd.DataFrame({"epoch": [0, 1], "train_loss": [9.0, 0.01], "val_r2": [0.01, 0.9], "val_auroc": [0.01, 1]})
    types = {
        panel.title: drawn(panel.figure)["layout"].get("yaxis", {}).get("type") for panel in training_curves(history)
    }
    assert types == {"Loss": "log", "R²": None, "AUROC": None}
