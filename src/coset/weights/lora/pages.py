"""Pages of runs on collections of LoRAs, of collections, maps of them, and of one adapter."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from coset.reports import Panel, Section, Table, write_sections
from coset.runs.folder import PREDICTIONS, REPORT, RunFolder
from coset.runs.recipe import Recipe
from coset.weights.lora.collections import TABLE
from coset.weights.lora.data.inspection import AdapterFacts

CATEGORIES = 8
"""A label of words, or of no more whole numbers than this, gets a colour and an entry of the legend for each."""


def write_run_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Scores of all models, before and after their factors were changed; predictions of the best."""
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
    predictions = pd.read_csv(folder / PREDICTIONS, dtype={"id": str})
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
        folder / REPORT, recipe.name, sections, lead=recipe.description, facts=facts,
        recipe=recipe.to_yaml(),
    )  # fmt: skip


def write_zoo_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Distributions of the labels of a collection."""
    labels = pd.read_csv(folder / TABLE, dtype={"id": str})
    score = metrics["score"]
    figure = go.Figure(go.Histogram(x=labels[score], nbinsx=30))
    figure.update_layout(xaxis_title=score, yaxis_title="adapters")
    table = Table(["label", "mean"], [[name, value] for name, value in metrics["mean"].items()])
    section = Section("Labels", tables=[table], panels=[Panel(score.capitalize(), figure)])
    return write_sections(
        folder / REPORT, recipe.name, [section],
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


def write_inspection(path: Path, facts: AdapterFacts) -> Path:
    """An adapter at a glance: norm and effective rank of every layer by place in the network, and spectra."""
    spectra = go.Figure()
    for i in range(max(layer.rank for layer in facts.layers)):
        shares = [s[i] / s[0] for s in (layer.singular_values for layer in facts.layers) if i < len(s) and s[0] > 0]
        spectra.add_box(y=shares, name=str(i + 1), showlegend=False)
    spectra.update_layout(xaxis_title="number", yaxis_title="share of the largest", yaxis_rangemode="tozero")
    names = [layer.name for layer in facts.layers]
    panels = [
        Panel("Norm by layer", _by_place(names, [layer.norm for layer in facts.layers])),
        Panel("Effective rank by layer", _by_place(names, [layer.effective_rank for layer in facts.layers])),
        Panel("Singular values of all layers", spectra),
    ]
    table = Table(
        ["layer", "kind", "shape", "rank", "scale", "norm", "effective rank"],
        [[f.name, f.kind, f"{f.n} x {f.m}", f.rank, f.scale, f.norm, f.effective_rank] for f in facts.layers],
    )
    text = "None of these numbers depends on how an update is factorised."
    sections = [Section("Updates", text, panels=panels, notes=facts.notes), Section("Layers", tables=[table])]
    line = {
        "format": facts.source_format, "base model": facts.base_model or "not said", "layers": str(len(facts.layers)),
        "numbers": f"{facts.parameters:,}", "of the updates": f"{facts.dense_parameters:,}",
        "norm": f"{facts.norm:.4g}",
    }  # fmt: skip
    return write_sections(path, Path(facts.name).name, sections, lead=f"LoRA adapter {facts.name}", facts=line)


def _by_place(names: Sequence[str], values: Sequence[float]) -> go.Figure:
    """A cell a layer: the numbers of its blocks across, the rest of its name down."""
    places = [_place(name) for name in names]
    rows, columns = list(dict.fromkeys(row for row, _ in places)), sorted({column for _, column in places})
    cells: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    texts = [[""] * len(columns) for _ in rows]
    for (row, column), name, value in zip(places, names, values, strict=True):
        i, j = rows.index(row), columns.index(column)
        cells[i][j], texts[i][j] = value, name
    figure = go.Figure(
        go.Heatmap(
            z=cells, y=rows, x=[".".join(map(str, c)) or "–" for c in columns], text=texts, colorscale="Viridis",
            hovertemplate="%{text}: %{z:.4g}<extra></extra>", hoverongaps=False,
        )
    )  # fmt: skip
    figure.update_layout(height=140 + 22 * len(rows), xaxis_title="block")
    figure.update_xaxes(type="category")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def _place(name: str) -> tuple[str, tuple[int, ...]]:
    """A name without the numbers of its blocks, and these; a number at its end counts if there is no other."""
    inner, any_ = r"(?<=[._:])\d+(?=[._:])", r"(?<=[._:])\d+(?=[._:]|$)"
    numbers = inner if re.search(inner, name) else any_
    return re.sub(numbers, "*", name), tuple(map(int, re.findall(numbers, name)))


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
