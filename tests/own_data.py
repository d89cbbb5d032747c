"""Four kinds of own graphs x all graph models x all tasks, each trained, stopped, gone on with, predicted and verified.

    python tests/own_data.py FOLDER

runs the whole product at tiny size and prints a table; the tests run cells that have every model, and all pairs of a
kind with a level and of a level with a sort of target.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import pandas as pd
import torch
from torch_geometric.data import Data

KINDS = ("tables", "pyg", "graph6", "networks")
LEVELS = ("graph", "node", "edge")
TASKS = ("regression", "classification", "multiclass")
SHAPES = [nx.path_graph(5), nx.cycle_graph(5), nx.star_graph(4), nx.bull_graph(), nx.house_graph(), nx.wheel_graph(5)]
WORDS = ("red", "green", "blue")


class Cell(NamedTuple):
    kind: str
    model: str
    level: str
    task: str


def cells() -> list[Cell]:
    """All that there are: graph6 holds no columns of nodes or edges, and models have the levels that they say."""
    from coset.graphs.models.options import GRAPH_MODELS

    models = {options: name for name, options in reversed(list(GRAPH_MODELS.items()))}
    tasks = [*product(LEVELS, TASKS), ("link", "link")]
    return [
        Cell(kind, name, level, task)
        for kind, (options, name), (level, task) in product(KINDS, sorted(models.items(), key=lambda m: m[1]), tasks)
        if level in options.levels and (kind != "graph6" or level in ("graph", "link"))
    ]


def pairs_of(cell: Cell) -> set[tuple[str, ...]]:
    kind, model, level, task = cell
    return {(model,), (kind, level), (level, task)}


def covering(every: list[Cell]) -> list[Cell]:
    """Few cells that have all pairs among them, taken greedily."""
    missing, chosen = set().union(*map(pairs_of, every)), []
    used = Counter[str]()
    while missing:
        best = max(every, key=lambda cell: (len(pairs_of(cell) & missing), -used[cell.model]))
        used[best.model] += 1
        missing -= pairs_of(best)
        chosen.append(best)
    return sorted(chosen)


def target(task: str, number: int) -> float | int | str:
    return {"regression": number * 0.37 % 1.9, "classification": number % 2, "multiclass": WORDS[number % 3]}[task]


def columns(prefix: str, number: int) -> dict[str, float | int | str]:
    return {f"{prefix}_{task}": target(task, number) for task in TASKS}


def attributed() -> list[nx.Graph]:
    """The six graphs with features, and a target of every level and sort."""
    graphs = []
    for number, shape in enumerate(SHAPES):
        graph = nx.Graph(**columns("graph", number))
        for node in shape:
            colour = WORDS[(node + number) % 3]
            graph.add_node(node, colour=colour, size=float(node * number % 4), **columns("node", node + number))
        for at, edge in enumerate(shape.edges):
            graph.add_edge(*edge, length=1.0 + at % 3, **columns("edge", at + number))
        graphs.append(graph)
    return graphs


def write(cell: Cell, place: Path) -> list[str]:
    """The graphs in a form, in a new folder; returns what a command says of them."""
    place.mkdir(parents=True)
    column = f"{cell.level}_{cell.task}"
    others = [f"{level}_{task}" for level, task in product(LEVELS, TASKS)]
    said = [f"data.target={column}"] if cell.level != "link" else []
    said.append("data.ignore=[" + ",".join(name for name in others if name != column) + "]")
    if cell.kind == "pyg":
        torch.save([as_pyg(graph, cell) for graph in attributed()], place / "mine.pt")
        return [f"data.path={place / 'mine.pt'}", f"data.level={cell.level}"]
    if cell.kind == "graph6":
        lines = [nx.to_graph6_bytes(graph, header=False).decode() for graph in SHAPES]
        (place / "mine.g6").write_text("".join(lines))
        pd.DataFrame([columns("graph", number) for number in range(6)]).to_csv(place / "mine.csv", index=False)
        return [f"data.path={place / 'mine.g6'}", *said]
    if cell.kind == "tables":
        rows: dict[str, list[dict]] = {"graphs": [], "nodes": [], "edges": []}
        for number, graph in enumerate(attributed()):
            rows["graphs"].append({"graph": number, **graph.graph})
            rows["nodes"] += [{"graph": number, "node": node, **data} for node, data in graph.nodes(data=True)]
            rows["edges"] += [
                {"graph": number, "source": u, "target": v, **data} for u, v, data in graph.edges(data=True)
            ]
        for name, table in rows.items():
            pd.DataFrame(table).to_csv(place / f"{name}.csv", index=False)
        return [f"data.path={place}", *said]
    if cell.level in ("node", "link"):
        value = [nx.node_link_data(graph, edges="edges") for graph in attributed()]
        (place / "mine.json").write_text(json.dumps(value))
        return [f"data.path={place / 'mine.json'}", *said]
    for number, graph in enumerate(attributed()):
        nx.write_graphml(graph, place / f"{number}.graphml")
    return [f"data.path={place}", *said]


def as_pyg(graph: nx.Graph, cell: Cell) -> Data:
    ends = [(u, v) for a, b in graph.edges for u, v in ((a, b), (b, a))]
    data = Data(edge_index=torch.tensor(ends).t(), x=torch.tensor([[graph.nodes[v]["size"], 1.0] for v in graph]))
    data.edge_attr = torch.tensor([[graph.edges[edge]["length"]] for edge in ends])
    if cell.level == "link":
        return data
    where = {"graph": [graph.graph], "node": [graph.nodes[v] for v in graph], "edge": [graph.edges[e] for e in ends]}
    values = [row[f"{cell.level}_{cell.task}"] for row in where[cell.level]]
    numbers = [float(WORDS.index(value)) if value in WORDS else float(value) for value in values]
    data["edge_y" if cell.level == "edge" else "y"] = torch.tensor(numbers)
    return data


def run(cell: Cell, place: Path) -> None:
    """Train, stop after an epoch, go on, predict for the same file, and verify; an assertion fails where it should."""
    from coset.runs.recipes import load
    from coset.runs.run import GivenUp

    said = [*write(cell, place / "data"), f"training.task={cell.task}", f"model.name={cell.model}", "model.width=16"]
    said += ["model.layers=1", "training.epochs=2", "training.batch_size=3", "data.fractions=[0.5,0.3,0.2]"]
    said += [f"training.monitor={m}" for t, m in (("classification", "accuracy"), ("link", "auroc")) if t == cell.task]
    recipe, folder = load("graphs", said), place / "run"

    def stop(row: object) -> None:
        raise GivenUp("once")

    with suppress(GivenUp):
        recipe.run(folder, quiet=True, on_epoch=stop)
    assert len(pd.read_csv(folder / "history.csv")) == 1
    metrics = recipe.run(folder, quiet=True)
    assert metrics["epochs"] == 2
    assert all(report.passed for report in recipe.verify(folder))
    frame = pd.read_csv(folder / "predictions.csv")
    count, _ = recipe.predict(recipe.folder(folder), recipe_path(said), place / "new.csv", quiet=True)
    new = pd.read_csv(place / "new.csv")
    if cell.level == "link":
        assert count == len(new) == sum(10 - graph.number_of_edges() for graph in SHAPES)
        assert new["prediction_link"].between(0, 1).all()
        assert new["prediction_link"].nunique() > 1  # what a softmax of one column would not give
    else:
        assert new["id"].tolist() == frame["id"].tolist()
        known = [name for name in frame if name.startswith(("prediction", "probability"))]
        pd.testing.assert_frame_equal(new[known], frame[known], check_exact=False, atol=1e-5)


def recipe_path(said: list[str]) -> Path:
    return Path(said[0].removeprefix("data.path="))


def main(place: Path) -> None:
    every = cells()
    found: dict[Cell, str] = {}
    for number, cell in enumerate(every):
        began = time.process_time()
        try:
            run(cell, place / str(number))
            found[cell] = f"{time.process_time() - began:.1f}"
        except Exception as error:
            found[cell] = "FAILED"
            print(*cell, type(error).__name__, " ".join(str(error).split())[:200], file=sys.stderr)
    print("| model | level, task |", " | ".join(KINDS), "|\n| --- | --- |", " --- |" * len(KINDS))
    for model, level, task in sorted({cell[1:] for cell in every}):
        row = [found.get(Cell(kind, model, level, task), "") for kind in KINDS]
        print(f"| {model} | {level}, {task} |", " | ".join(row), "|")
    failed = sum(value == "FAILED" for value in found.values())
    print(f"{len(every)} cells, {failed} failed, {time.process_time():.0f} CPU s (numbers are CPU s of a cell)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
