"""Short trainings of norms, encodings and updates side by side: tables of GRANOLA, CS-GNN, Subgraphormer, EPNN.

Run: python benchmarks/graph_tables.py FOLDER [STUDY ...] [--seeds 0 1 2]. Every training is a recipe with changes,
listed below; it leaves a row in FOLDER/STUDY.jsonl once it is done, and what is there is not trained again: the same
command goes on where it was stopped. `python benchmarks/graph_tables.py FOLDER --show` prints the tables from the rows.
The rows that the pages were made from are in benchmarks/results/graph_tables. One thread; data in COSET_DATA.

A row: study, setting, seed, the metric of the best epoch on validation and on test molecules (studies on a part of
ZINC have none to test on, but models-zinc, cells-zinc and those named -longer), the metric on validation after every
epoch, numbers of parameters, CPU seconds an epoch.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, cycle
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import torch

from coset.core.data_files import data_file
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.experiments import GraphRecipe
from coset.graphs.fitting.engine import fit
from coset.runs.metrics import metrics_of
from coset.runs.recipes import load

FEW = {"train": 1000, "val": 500}  # molecules of the studies on a part of ZINC
MORE = {"train": 3000, "val": 1000}  # where sets are compared, whose differences are smaller
TESTED = {**MORE, "test": 1000}  # a seed has 3,000 training molecules of its own
ROOM = Path(tempfile.gettempdir()) / "coset-graph-tables"


@dataclass(frozen=True)
class Study:
    """Settings of one recipe that are set side by side.

    Attributes:
        base: The recipe.
        settings: Changes by name.
        common: Changes of all settings.
        seeds: Of every setting.
        part: Only so many of the first molecules of ZINC, in each split; with test molecules the training molecules
            of a seed are the next so many.
        of_seeds: Changes that a seed is filled in to.
    """

    base: str
    settings: dict[str, list[str]]
    common: list[str] = field(default_factory=list)
    seeds: tuple[int, ...] = (0, 1, 2)
    part: dict[str, int] | None = None
    of_seeds: tuple[str, ...] = ()


NORMS = ["batch", "layer-node", "instance", "graph", "pair", "identity", "granola-no-rnf"]
INSIDE, WITHOUT = ["model.inner_norm=true", "model.head_norm=true"], ["model.inner_norm=false"]
FOUR_DRAWS = ["model.norm=granola", "model.draws=4"]
LEAGUE = {norm: [f"model.norm={norm}", *INSIDE] for norm in NORMS} | {"granola": FOUR_DRAWS + INSIDE}
NOISE_TENTH = {"granola, noise x .1": [*FOUR_DRAWS, *INSIDE, "model.granola={noise_scale: 0.1}"]}
BARE = {"batch, none inside": ["model.norm=batch", *WITHOUT], "granola, none inside": FOUR_DRAWS + WITHOUT}
FIRST_EPOCHS = [
    "model.width=32", "model.layers=3", "training.learning_rate=0.002", "training.schedule=cosine", "training.warmup=1",
    "training.max_minutes=null",
]  # fmt: skip
SMALL_ZINC = [*FIRST_EPOCHS, "training.batch_size=32", "training.epochs=8"]
ENCODINGS = {
    "no encoding": ["model.positional_encoding=0"],
    "as it is": [],
    "scaled": ["model.scale_encoding=true"],
    "signs flipped": ["model.flip_signs=true"],
    "true products": ["model.one_axis=false"],
}
UPDATES = {kind: [f"model.updates={kind}"] for kind in ("none", "point", "full")}
SETS = {f"{bag}": [f"model.bag={bag}"] for bag in (2, 5, "full", 1)}
LONGER = [*FIRST_EPOCHS, "training.batch_size=64", "training.epochs=30"]
STEADY = [
    "training.batch_size=64", "training.learning_rate=0.001", "training.schedule=cosine", "training.warmup=1",
    "training.max_minutes=null",
]  # fmt: skip
TYPES = "data.features=types"
CHOICES = {
    f"{bag} {choice}": [f"model.bag={bag}", f"model.coarsening={choice}"]
    for bag in (2, 5)
    for choice in ("spectral", "random", "sample")
}
EIGENSPACES = {
    "message passing (GIN)": ["model={name: gin, width: 80, layers: 5, residual: true}"],
    "EPNN": ["model={name: epnn, width: 64, layers: 5, residual: true, readout: sum}"],
    "GRIT, random walks": ["model={name: grit, width: 40, layers: 4, heads: 8, walk_steps: 21, encoder: none}"],
    "GRIT, eigenspaces too": ["model={name: grit, width: 40, layers: 4, heads: 8, walk_steps: 21, channels: 40}"],
}  # 80,000 to 100,000 parameters each
MODELS = {
    "GIN": "name: gin, width: 64, layers: 4, residual: true",
    "GIN+": "name: gin, width: 40, layers: 4, residual: true, walks: 20, feed_forward: true, dropout: 0.1",
    "HOMP (CIN)": "name: homp, width: 28, layers: 3",
    "CS-GNN, 5 sets": "name: csgnn, bag: 5, width: 36, layers: 3, readout: sum",
    "Subgraphormer + PE": "name: subgraphormer, width: 52, layers: 3, positional_encoding: 8",
    "Subgraphormer": "name: subgraphormer, width: 52, layers: 3, positional_encoding: 0",
    "GNN-SSWL+": "name: gnn-sswl-plus, width: 43, layers: 3",
    "SMCN": "name: smcn, width: 27, layers: 2, ranks: [0, 1], after: 1",
    "GRIT": "name: grit, width: 32, layers: 4, heads: 8, walk_steps: 21, encoder: none",
}  # 45,000 to 49,000 parameters each
CELLS = {
    "HOMP (CIN)": MODELS["HOMP (CIN)"],
    "SMCN": MODELS["SMCN"],
    "SMCN, as published": "name: smcn, width: 24, pair_width: 24, layers: 5, ranks: [0, 1], before: 1, after: 1, "
    "marking: distance, merge: sum, fresh_marks: true, norm: batch",  # layers of the published network for ZINC
}


def subgraph_networks(dropout: float) -> dict[str, list[str]]:
    """As the recipes for small sets of molecules have them."""
    shared = "width: 48, layers: 3, residual: true"
    attention = f"name: subgraphormer, {shared}, readout: mean, linear: true, dropout: {dropout}"
    return {
        "Subgraphormer + PE": [f"model={{{attention}, positional_encoding: 8}}"],
        "Subgraphormer": [f"model={{{attention}, positional_encoding: 0}}"],
        "GNN-SSWL+": [f"model={{name: gnn-sswl-plus, {shared}}}"],
    }


STUDIES = {
    "models-zinc": Study(
        "gin/zinc12k",
        {name: [f"model={{{options}}}"] for name, options in MODELS.items()}
        | {
            "GIN+, 300 epochs": [f"model={{{MODELS['GIN+']}}}", "training.epochs=300"],
            "GRIT, clipped": [f"model={{{MODELS['GRIT']}}}", "training.gradient_clip=1"],
        },
        [*STEADY, "training.epochs=30", TYPES],
        part=TESTED,
    ),
    "cells-zinc": Study(
        "gin/zinc12k",
        {name: [f"model={{{options}}}"] for name, options in CELLS.items()},
        [*STEADY, "training.epochs=30", TYPES],
        part=TESTED,
    ),
    "granola-zinc": Study(
        "gin/zinc12k",
        LEAGUE | NOISE_TENTH | BARE,
        [*FIRST_EPOCHS, "model.residual=true", "training.batch_size=64", "training.epochs=4"],
    ),
    "encoding-zinc": Study("subgraphormer/zinc12k", ENCODINGS, SMALL_ZINC, part=FEW),
    "updates-zinc": Study("csgnn/zinc12k", UPDATES, SMALL_ZINC, part=FEW),
    "models-bace": Study(
        "gin/bace",
        {
            "GIN": [],
            "GIN, GRANOLA": ["model.norm=granola", "model.draws=4", *INSIDE],
            "CS-GNN, 2 sets": ["model={name: csgnn, bag: 2, width: 48, layers: 3, readout: mean, residual: true}"],
            "CS-GNN, 5 sets": ["model={name: csgnn, bag: 5, width: 48, layers: 3, readout: mean, residual: true}"],
            **subgraph_networks(dropout=0.3),
        },
        ["training.epochs=30", "training.schedule=cosine"],
        seeds=(0, 1, 2, 3, 4),
    ),
    "models-esol-scaffold": Study(
        "gin/esol",
        {"GIN": [], **subgraph_networks(dropout=0.0)},
        ["data.split=scaffold"],
        seeds=(0, 1, 2, 3, 4),
    ),
    "updates-zinc-longer": Study("csgnn/zinc12k", UPDATES, LONGER, part=MORE),
    "granola-zinc-longer": Study(
        "gin/zinc12k",
        {
            "batch": ["model.norm=batch", *INSIDE],
            "batch, width 59": ["model.norm=batch", *INSIDE, "model.width=59"],
            "granola-no-rnf": ["model.norm=granola-no-rnf", *INSIDE],
            "granola": FOUR_DRAWS + INSIDE,
        },
        [*LONGER, "model.residual=true", TYPES],
        of_seeds=("data.training_set={}",),
    ),
    "sets-zinc-longer": Study(
        "csgnn/zinc12k",
        {
            choice: ["model.bag=2", f"model.coarsening={choice}"]
            for choice in ("spectral", "random", "sample", "centrality")
        },
        [*LONGER, TYPES],
        part=TESTED,
    ),
    "encoding-zinc-longer": Study(
        "subgraphormer/zinc12k",
        {
            f"{share:.0%} of roots, {name}": [*changes, f"model.root_fraction={share}"]
            for share in (0.2, 1.0)
            for name, changes in {"no encoding": ENCODINGS["no encoding"], "encoding": []}.items()
        },
        [*LONGER, TYPES],
        part=TESTED,
    ),
    "sets-esol-scaffold": Study("csgnn/esol", SETS, ["data.split=scaffold"]),
    "sets-esol-random": Study("csgnn/esol", SETS, ["data.split=random"]),
    "sets-zinc": Study(
        "csgnn/zinc12k",
        CHOICES,
        [*FIRST_EPOCHS, "training.batch_size=64", "training.epochs=10"],
        part=MORE,
    ),
    "eigenspaces-zinc": Study(
        "gin/zinc12k",
        EIGENSPACES,
        [*STEADY, "training.epochs=15"],
        part=MORE,
    ),
    "eigenspaces-zinc-longer": Study(
        "gin/zinc12k",
        {name: EIGENSPACES[name] for name in ("message passing (GIN)", "EPNN")},
        [*STEADY, "training.epochs=60"],
        seeds=(0,),
        part=MORE,
    ),
    "granola-esol-scaffold": Study(
        "granola/esol",
        {
            "batch": ["model.norm=batch", "model.draws=1"],
            "granola-no-rnf": ["model.norm=granola-no-rnf", "model.draws=1"],
            "granola": [],
            "granola, none inside": ["model.inner_norm=false", "model.head_norm=false"],
        },
        ["data.split=scaffold"],
    ),
}  # fmt: skip


class Trainer:
    """Trains cells, and keeps what was read and encoded last."""

    def __init__(self) -> None:
        self.read: tuple[str, GraphTable] | None = None
        self.encoded: tuple[str, GraphTable] | None = None

    def table(self, recipe: GraphRecipe) -> GraphTable:
        """The recipe's data with what its model needs."""
        if self.read is None or self.read[0] != recipe.reads:
            self.read, self.encoded = (recipe.reads, recipe.load()), None
        key = f"{recipe.reads} {recipe.model.transform()!r}"
        if self.encoded is None or self.encoded[0] != key:
            self.encoded = key, self.read[1].map(recipe.encode)
        return self.encoded[1]

    def row(self, recipe: GraphRecipe) -> dict[str, Any]:
        """Train, and measure the best epoch."""
        table, t = self.table(recipe), recipe.training
        task = recipe.task(table)
        with tempfile.TemporaryDirectory() as folder:
            how = replace(recipe.how(), quiet=True)
            fit(task, table.subset("train"), table.subset("val"), how, Path(folder), view=recipe.view)
            history = pd.read_csv(Path(folder) / "history.csv")
        row: dict[str, Any] = {"params": sum(p.numel() for p in task.model.parameters())}
        for split in ("val", "test"):
            rows = table.splits.get(split)
            if rows is not None:
                predicted = recipe.predictions(task, table.subset(split))
                row[split] = round(metrics_of(task.task, predicted, table.targets[rows])[t.monitor], 4)
        curve = history[f"val_{t.monitor}"].round(4).tolist()
        return row | {"curve": curve, "cpu_s": round(float(history["cpu_seconds"].iloc[-1]) / t.epochs, 2)}


def part_of_zinc(part: dict[str, int], seed: int) -> Path:
    """A folder with the first training and validation molecules, so many of each; see :class:`Study`."""
    number = seed if "test" in part else 0
    folder = ROOM / "-".join(map(str, [*part.values(), number]))
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in part.items():
        table = pd.read_csv(data_file(f"molecules/zinc12k_{name}.csv"))
        first = number * rows if name == "train" else 0
        if first + rows > len(table):
            raise SystemExit(f"zinc12k_{name}.csv has no rows {first} to {first + rows - 1} for seed {seed}")
        table.iloc[first : first + rows].to_csv(folder / f"zinc12k_{name}.csv", index=False)
    return folder


def cells(study: Study, seeds: list[int] | None) -> Iterator[tuple[int, str, GraphRecipe]]:
    """Seed by seed, so that a table that was cut off has whole columns."""
    for seed in study.seeds if seeds is None else seeds:
        for name, changes in study.settings.items():
            where = [f"data.path={part_of_zinc(study.part, seed)}"] if study.part else []
            where += [change.format(seed) for change in study.of_seeds]
            recipe = load(study.base, [*study.common, *changes, *where, f"seed={seed}"])
            assert isinstance(recipe, GraphRecipe)
            yield seed, name, recipe


def run(name: str, folder: Path, seeds: list[int] | None) -> None:
    file, trainer = folder / f"{name}.jsonl", Trainer()
    done = {(row["setting"], row["seed"]) for row in rows_of(file)}
    for seed, setting, recipe in cells(STUDIES[name], seeds):
        if (setting, seed) in done:
            continue
        row = {"study": name, "setting": setting, "seed": seed} | trainer.row(recipe)
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def show(name: str, folder: Path) -> None:
    """A row a setting: every seed, mean and deviation, CPU seconds an epoch."""
    rows = rows_of(folder / f"{name}.jsonl")
    if not rows:
        return
    print(
        f"\n{name}\n\n| setting | by seed | mean ± sd | parameters | CPU s an epoch |\n| --- | --- | --- | --- | --- |"
    )
    for setting in STUDIES[name].settings:
        own = [row for row in rows if row["setting"] == setting]
        values = [row.get("test", row["val"]) for row in own]
        if values:
            spread = f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"
            each = ", ".join(f"{value:.3f}" for value in values)
            print(f"| {setting} | {each} | {spread} | {own[0]['params']:,} | {mean(r['cpu_s'] for r in own):.1f} |")


COLOURS = (
    "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22",
    "#000000",
)  # fmt: skip
LEFT, TOP, ACROSS, TALL, WORDS = 56, 16, 440, 300, 190  # pixels: of a plot, and of the names beside it


def curve_of(rows: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """CPU seconds spent, and the least error on validation so far, after each epoch: means over seeds."""
    least = [mean(values) for values in zip(*(accumulate(row["curve"], min) for row in rows), strict=True)]
    epoch = mean(row["cpu_s"] for row in rows)
    return [epoch * (number + 1) for number in range(len(least))], least


def apart(heights: list[float], least: float = 15) -> list[float]:
    """Rising heights of words, moved so that they are apart and end at the bottom of the plot or above it."""
    down = [least * number for number in range(len(heights))]
    free = list(accumulate((height - off for height, off in zip(heights, down, strict=True)), max))
    bottom = TOP + TALL - least * (len(heights) - 1)
    return [min(height, bottom) + off for height, off in zip(free, down, strict=True)]


def picture(name: str, folder: Path) -> str:
    """SVG of error over CPU seconds, a line a setting, both logarithmic."""
    kept = rows_of(folder / f"{name}.jsonl")
    own = {setting: [row for row in kept if row["setting"] == setting] for setting in STUDIES[name].settings}
    lines = {setting: curve_of(rows) for setting, rows in own.items() if rows}
    ends = [[f(f(line[axis]) for line in lines.values()) for f in (min, max)] for axis in (0, 1)]

    def at(axis: int, value: float) -> float:
        share = math.log(value / ends[axis][0]) / math.log(ends[axis][1] / ends[axis][0])
        return LEFT + ACROSS * share if axis == 0 else TOP + TALL * (1 - share)

    parts = []
    for axis, unit, digits in ((0, " s", (1, 2, 5)), (1, "", (1, 2, 3, 5))):
        steps = [digit * 10.0**power for power in range(-3, 5) for digit in digits]
        for value in (step for step in steps if ends[axis][0] <= step <= ends[axis][1]):
            x1, x2 = (at(0, value),) * 2 if axis == 0 else (LEFT, LEFT + ACROSS)
            y1, y2 = (TOP, TOP + TALL) if axis == 0 else (at(1, value),) * 2
            words = f'x="{x1:.0f}" y="{TOP + TALL + 16}" text-anchor="middle"'
            words = words if axis == 0 else f'x="{LEFT - 6}" y="{y1 + 4:.0f}" text-anchor="end"'
            parts.append(f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="#e4e4e4"/>')
            parts.append(f"<text {words}>{value:g}{unit}</text>")
    ranked = sorted(zip(lines.items(), cycle(COLOURS), strict=False), key=lambda line: line[0][1][1][-1], reverse=True)
    heights = apart([at(1, errors[-1]) for (_, (_, errors)), _ in ranked])
    for ((setting, (seconds, errors)), colour), y in zip(ranked, heights, strict=True):
        points = " ".join(f"{at(0, x):.1f},{at(1, y):.1f}" for x, y in zip(seconds, errors, strict=True))
        end, x = (at(0, seconds[-1]), at(1, errors[-1])), LEFT + ACROSS + 14
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(f'<circle cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<path d="M{end[0]:.1f} {end[1]:.1f}L{x - 4} {y:.1f}" stroke="{colour}" stroke-width=".5"/>')
        parts.append(f'<text x="{x}" y="{y + 4:.1f}" fill="{colour}">{setting}, {errors[-1]:.3f}</text>')
    title = "least error on validation so far over CPU seconds of training, one core, mean over seeds"
    parts.append(f'<text x="{LEFT}" y="{TOP + TALL + 36}" fill="#555">{title}</text>')
    size = f"{LEFT + ACROSS + WORDS} {TOP + TALL + 48}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where rows are kept")
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of those of a study")
    parser.add_argument("--show", action="store_true", help="print tables, train nothing")
    parser.add_argument("--figure", type=Path, help="draw error over CPU seconds of one study, train nothing")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.studies or STUDIES:
        if options.figure:
            options.figure.write_text(picture(name, options.folder))
        elif options.show:
            show(name, options.folder)
        else:
            run(name, options.folder, options.seeds)


if __name__ == "__main__":
    main()
