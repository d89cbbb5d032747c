"""Pages of runs on collections of LoRAs, of collections, and maps of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from coset.recipes.recipe import Recipe
from coset.reports import Panel, Section, Table, write_sections

CATEGORIES = 8
"""A label of words, or of no more whole numbers than this, gets a colour and an entry of the legend for each."""


def write_run_page(recipe: Recipe, folder: Path) -> Path:
    """Scores of all models, before and after their factors were changed; predictions of the best."""
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    columns, rows = recipe.summary(metrics)
    key = "accuracy" if metrics["task"] == "classification" else "r2"
    figure = go.Figure()
    for part in ("test", "test after O(r)", "test after GL(r)"):
        figure.add_bar(name=part, x=list(metrics["models"]), y=[r[part][key] for r in metrics["models"].values()])
    figure.update_layout(barmode="group", yaxis_title=f"{key} on test adapters")
    size = go.Figure()
    for name, r in metrics["models"].items():
        size.add_scatter(x=[max(r["params"], 1)], y=[r["test"][key]], name=name, mode="markers", hovertext=name)
    size.update_layout(xaxis_title="parameters", xaxis_type="log", yaxis_title=f"{key} on test adapters")
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"id": str})
    changes = [[n, r["change under O(r)"], r["change under GL(r)"]] for n, r in metrics["models"].items()]
    sections = [
        Section(
            "Models",
            "Test adapters are also written with other factors U R, V R^-T of the same updates, R orthogonal, or "
            "invertible with a condition number up to 10. * marks the best validation score; that model is kept.",
            [Table(columns, [[_number(cell) for cell in row] for row in rows])],
            [Panel("Scores before and after", figure), Panel("Size", size)],
            notes=metrics["notes"],
        ),
        Section(
            "Largest change of an output under other factors",
            "Relative to the largest output; float32.",
            [Table(["model", "O(r)", "GL(r)"], changes)],
        ),
        Section(
            "Predictions",
            f"Of {metrics['best']}.",
            _tables(predictions),
            _panels(predictions, metrics),
        ),
    ]
    facts = {
        "adapters": ", ".join(f"{n} {s}" for s, n in metrics["adapters"].items()), "layers": str(metrics["layers"]),
        "rank": str(metrics["rank"]), "seed": str(metrics["seed"]), "seconds": str(metrics["seconds"]),
        "baseline": ", ".join(f"{k} {v:.3f}" for k, v in metrics["baseline"].items()),
    }  # fmt: skip
    return write_sections(
        folder / "report.html", recipe.name, sections, lead=recipe.description, facts=facts,
        recipe=recipe.to_yaml(),
    )  # fmt: skip


def write_zoo_page(recipe: Recipe, folder: Path) -> Path:
    """Distributions of the labels of a collection."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    labels = pd.read_csv(folder / "labels.csv", dtype={"id": str})
    score = metrics["score"]
    figure = go.Figure(go.Histogram(x=labels[score], nbinsx=30))
    figure.update_layout(xaxis_title=score, yaxis_title="adapters")
    table = Table(["label", "mean"], [[name, value] for name, value in metrics["mean"].items()])
    section = Section("Labels", tables=[table], panels=[Panel(score.capitalize(), figure)])
    return write_sections(
        folder / "report.html", recipe.name, [section],
        lead=recipe.description, facts={"adapters": str(metrics["adapters"]), "seed": str(metrics["seed"])},
        command="coset lora zoo recipe.yaml", recipe=recipe.to_yaml(),
    )  # fmt: skip


def write_map(path: Path, names: list[str], places: Any, colours: pd.Series | None, title: str) -> Path:
    """A point an adapter, with its name; coloured by a label."""
    figure = go.Figure()
    marker: dict[str, Any] = {"size": 7}
    shown = None if colours is None else colours.reset_index(drop=True)
    if shown is not None and _is_class(shown):
        for value, rows in shown.groupby(shown, dropna=False):
            chosen = places[rows.index]
            texts = [names[i] for i in rows.index]
            called = f"{shown.name} {value:g}" if isinstance(value, float | int) else f"{shown.name} {value}"
            figure.add_scatter(
                x=chosen[:, 0], y=chosen[:, 1], mode="markers", text=texts, name=called, marker=marker, showlegend=True
            )
    else:
        if shown is not None:
            bar = {"title": str(shown.name)}
            marker |= {"color": shown.to_list(), "colorscale": "Viridis", "showscale": True, "colorbar": bar}
        figure.add_scatter(x=places[:, 0], y=places[:, 1], mode="markers", text=names, marker=marker)
    figure.update_layout(xaxis_title="first component", yaxis_title="second component", height=640)
    text = "Kernel principal components of the cosines between updates; those that lie close are alike."
    return write_sections(path, title, [Section("Map", text, panels=[Panel("Map of the collection", figure)])])


def _is_class(labels: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(labels):
        return True
    return labels.nunique() <= CATEGORIES and bool((labels.dropna() % 1 == 0).all())


def _number(cell: str) -> str | float:
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return cell


def _tables(predictions: pd.DataFrame) -> list[Table]:
    test = predictions[predictions["split"] == "test"].head(200)
    return [Table(list(map(str, test.columns)), test.to_numpy().tolist(), "the first 200 test adapters")]


def _panels(predictions: pd.DataFrame, metrics: dict[str, Any]) -> list[Panel]:
    if metrics["task"] != "regression":
        return []
    panels = []
    test = predictions[predictions["split"] == "test"]
    for name in metrics["targets"]:
        true, found = test[f"target_{name}"], test[f"prediction_{name}"]
        figure = go.Figure(go.Scatter(x=true, y=found, mode="markers", text=test["id"], showlegend=False))
        low, high = float(min(true.min(), found.min())), float(max(true.max(), found.max()))
        figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line={"dash": "dash"}, showlegend=False)
        figure.update_layout(xaxis_title=f"true {name}", yaxis_title=f"predicted {name}")
        panels.append(Panel(f"{name}, predicted against true", figure))
    return panels
