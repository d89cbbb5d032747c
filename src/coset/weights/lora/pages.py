"""Pages of runs on collections of LoRAs, of collections, maps of them, and of one adapter."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coset.core.files import takes_paths
from coset.core.outside import read_numbers
from coset.reports import (
    Axis,
    Figure,
    Mark,
    Panel,
    Section,
    Table,
    bars,
    box,
    counted,
    figure,
    heat_map,
    histogram,
    line,
    points,
    write_sections,
)
from coset.runs.folder import PREDICTIONS, REPORT, RunFolder
from coset.runs.recipe import Recipe
from coset.weights.lora.data.inspection import AdapterFacts
from coset.weights.lora.labels import TABLE

CATEGORIES = 8
"""A label of words, or of no more whole numbers than this, gets a colour and an entry of the legend for each."""


def write_run_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Scores of all models, before and after their factors were changed; predictions of the best."""
    columns, rows = recipe.summary(metrics)
    key = "accuracy" if metrics["task"] == "classification" else "r2"
    predictions = read_numbers(folder / PREDICTIONS, texts=["id"])
    changes = [[n, r["change under O(r)"], r["change under GL(r)"]] for n, r in metrics["models"].items()]
    sections = [
        Section(
            "Models",
            "Test adapters are also written with other factors U R, V R^-T of the same updates, R orthogonal, or "
            "invertible with a condition number up to 10. * marks the best validation score; that model is kept.",
            [Table(columns, [[_number(cell) for cell in row] for row in rows])],
            _model_panels(metrics["models"], key),
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
        recipe=recipe.to_yaml(), kind="learning on LoRAs", verdict=_verdict(metrics, key),
    )  # fmt: skip


def _verdict(metrics: dict[str, Any], key: str) -> str:
    """The best model by validation, and what other factors of the same updates do to it."""
    best = metrics["models"][metrics["best"]]
    baseline = f" (baseline {metrics['baseline'][key]:.3f})" if key in metrics["baseline"] else ""
    other = f"{best['test after GL(r)'][key]:.3f} with other factors of the same updates"
    return f"Best by validation: {metrics['best']}, {key} {best['test'][key]:.3f} on test{baseline}, {other}."


def _model_panels(models: dict[str, Any], key: str) -> list[Panel]:
    """A score of every model, before and after, and against its size."""
    parts, y = ("test", "test after O(r)", "test after GL(r)"), f"{key} on test adapters"
    scores = [bars(list(models), [r[part][key] for r in models.values()], part) for part in parts]
    sizes = [points([max(r["params"], 1)], [r["test"][key]], name, texts=[name]) for name, r in models.items()]
    x = Axis("parameters", log=True)
    return [Panel("Scores before and after", figure(*scores, y=y)), Panel("Size", figure(*sizes, x=x, y=y))]


def write_zoo_page(recipe: Recipe, folder: RunFolder, metrics: dict[str, Any]) -> Path:
    """Distributions of the labels of a collection."""
    labels = read_numbers(folder / TABLE, texts=["id"])
    score = metrics["score"]
    drawn = figure(histogram(labels[score], bins=30), x=score, y="adapters")
    table = Table(["label", "mean"], [[name, value] for name, value in metrics["mean"].items()])
    section = Section("Labels", tables=[table], panels=[Panel(score.capitalize(), drawn)])
    return write_sections(
        folder / REPORT, recipe.name, [section],
        lead=recipe.description, facts={"adapters": str(metrics["adapters"]), "seed": str(metrics["seed"])},
        command="coset lora zoo recipe.yaml", recipe=recipe.to_yaml(), kind="collection of LoRAs",
        verdict=_zoo_verdict(metrics),
    )  # fmt: skip


def _zoo_verdict(metrics: dict[str, Any]) -> str:
    score = metrics["score"]
    found = metrics[score]
    return (
        f"{counted(metrics['adapters'], 'adapter')} of mean {score} {found['mean']:.3f}, "
        f"from {found['min']:.3f} to {found['max']:.3f}."
    )


@takes_paths
def write_map(
    path: Path, names: list[str], places: Any, colours: pd.Series | None, title: str, notes: Sequence[str] = ()
) -> Path:
    """A point an adapter, with its name; coloured by a label."""
    drawn = figure(*_points_of_map(names, places, colours), x="first component", y="second component", height=640)
    text = "Kernel principal components of the cosines between updates; those that lie close are alike."
    sections = [Section("Map", text, panels=[Panel("Map of the collection", drawn)], notes=list(notes))]
    coloured = "" if colours is None else f", coloured by {colours.name}"
    verdict = f"{counted(len(names), 'adapter')}, close where their updates are alike{coloured}."
    return write_sections(path, title, sections, kind="map of LoRAs", verdict=verdict)


def _points_of_map(names: list[str], places: Any, labels: pd.Series | None) -> list[Mark]:
    """Of one colour, of a colour a class, or of a scale of colours."""
    if labels is None:
        return [points(places[:, 0], places[:, 1], texts=names, size=7)]
    labels = labels.reset_index(drop=True)
    if not _is_class(labels):
        values, scale = labels.to_list(), str(labels.name)
        return [points(places[:, 0], places[:, 1], texts=names, size=7, colour=values, scale=scale)]
    marks = []
    for value, rows in labels.groupby(labels, dropna=False):
        name = f"{labels.name} {value:g}" if isinstance(value, float | int) else f"{labels.name} {value}"
        x, y = places[rows.index].T
        marks.append(points(x, y, name, texts=[names[i] for i in rows.index], size=7, listed=True))
    return marks


@takes_paths
def write_inspection(path: Path, facts: AdapterFacts) -> Path:
    """An adapter at a glance: norm and effective rank of every layer by place in the network, and spectra."""
    boxes = []
    for i in range(max(layer.rank for layer in facts.layers)):
        shares = [s[i] / s[0] for s in (layer.singular_values for layer in facts.layers) if i < len(s) and s[0] > 0]
        boxes.append(box(shares, str(i + 1), listed=False))
    spectra = figure(*boxes, x="number", y=Axis("share of the largest", from_zero=True))
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
    lead, name = f"LoRA adapter {facts.name}", Path(facts.name).name
    verdict = _inspection_verdict(facts)
    return write_sections(path, name, sections, lead=lead, facts=line, kind="LoRA adapter", verdict=verdict)


def _inspection_verdict(facts: AdapterFacts) -> str:
    """How much of its rank the adapter uses, and where it changes most."""
    largest = max(facts.layers, key=lambda layer: layer.norm)
    used = sum(layer.effective_rank for layer in facts.layers) / len(facts.layers)
    ranks = sorted({layer.rank for layer in facts.layers})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    if not any(layer.norm for layer in facts.layers):
        return f"{counted(len(facts.layers), 'layer')} of {rank}, and all updates are zero."
    return (
        f"{counted(len(facts.layers), 'layer')} of {rank}, of which {used:.1f} are in use on average; "
        f"{largest.name} changes most."
    )


def _by_place(names: Sequence[str], values: Sequence[float]) -> Figure:
    """A cell a layer: the numbers of its blocks across, the rest of its name down."""
    places = [_place(name) for name in names]
    rows, columns = list(dict.fromkeys(row for row, _ in places)), sorted({column for _, column in places})
    shown = _without_common_part(rows)
    cells: list[list[float | None]] = [[None] * len(columns) for _ in rows]
    texts = [[""] * len(columns) for _ in rows]
    for (row, column), name, value in zip(places, names, values, strict=True):
        i, j = rows.index(row), columns.index(column)
        cells[i][j], texts[i][j] = value, name
    cell_map = heat_map(cells, shown, [".".join(map(str, c)) or "–" for c in columns], texts)
    x, y = Axis("block", categories=True), Axis(reversed=True)
    return figure(cell_map, x=x, y=y, height=140 + 22 * len(rows))


def _without_common_part(names: Sequence[str]) -> list[str]:
    """Names of layers without what all of them begin with."""
    parts = [name.split(".") for name in names]
    same = 0
    while all(len(each) > same + 1 and each[same] == parts[0][same] for each in parts):
        same += 1
    return [".".join(each[same:]) for each in parts]


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
        true, predicted = test[f"target_{name}"], test[f"prediction_{name}"]
        span = [float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))]
        adapters = points(true, predicted, texts=test["id"], listed=False)
        right = line(span, span, dash="dash", listed=False)
        drawn = figure(adapters, right, x=f"true {name}", y=f"predicted {name}")
        panels.append(Panel(f"{name}, predicted against true", drawn))
    return panels
