"""A made-up run's folder with everything that a run can leave, and with names that try to break the page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

SMILES = [
    "CCO",
    "c1ccccc1",
    "CC(=O)Oc1ccccc1C(=O)O",
    "CCN",
    "C1CC1",
    "[Na+].[Cl-]",
    "C",
    "CC(C)Cl",
    "CS(C)=O",
    "no smiles",
]
NASTY = '<img src=x onerror="window.broken=1">&</script><b>'


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A regression with one target."""
    return write_run(tmp_path / "run")


@pytest.fixture
def nasty() -> str:
    return NASTY


@pytest.fixture
def report_frame() -> Callable[[int], pd.DataFrame]:
    """Predictions for so many molecules."""
    return predictions


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, **changes: write_run(tmp_path / name, **changes)


def write_run(
    folder: Path, *, recipe: str = "subgraphormer/made-up", seed: int = 0, layers: int = 3, error: float = 0.5
) -> Path:
    folder.mkdir()
    metrics: dict[str, Any] = {
        split: {"rmse": error * scale, "mae": error * scale * 0.8, "r2": 0.75}
        for split, scale in (("train", 1), ("val", 2), ("test", 3))
    }
    metrics["baseline"] = {"train": {"rmse": 4.0}, "val": {"rmse": 4.0}, "test": {"rmse": 4.0, "mae": 3.0, "r2": 0.0}}
    metrics |= {"params": 12345, "seconds": 75.0, "best_epoch": 3, "epochs": 5, "seed": seed, "recipe": recipe}
    metrics |= {
        "versions": {"coset": "0.1.0"},
        "machine": {"cpu_count": 2, "threads": 1},
        "notes": [f"skipped {NASTY}"],
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    training = "training:\n  task: regression\n  monitor: mae\n"
    (folder / "recipe.yaml").write_text(f"kind: graphs\nmodel:\n  layers: {layers}\n{training}seed: {seed}\n")
    history = pd.DataFrame({"epoch": range(5), "train_loss": [5.0, 3, 2, 1, 0.05], "val_mae": [4, 3, np.nan, 1, 2]})
    history.assign(lr=[0.1, 0.1, 0.1, 0.05, 0.05], seconds=range(5)).to_csv(folder / "history.csv", index=False)
    predictions(40).to_csv(folder / "predictions.csv", index=False)
    claim = {"group": "S_n on nodes", "output": "trivial", "trials": 5, "moved": 5, "dtype": "float64"}
    claim |= {"max_absolute_error": 1e-15, "max_relative_error": 1e-15, "tolerance": 1e-8, "passed": True}
    broken = claim | {"passed": False, "max_absolute_error": None, "detail": NASTY}
    (folder / "certificate.json").write_text(json.dumps([claim, broken]))
    from coset.graphs.pages.attention import write_attention

    write_attention(folder, [record(NASTY, SMILES[2]), record("ethanol", SMILES[0]), record("methane", "C")])
    return folder


def predictions(rows: int) -> pd.DataFrame:
    """Molecule i of a cycle of SMILES, true value i, predicted i + 0.1 (i + 1): the last test molecule is worst."""
    true = np.arange(rows, dtype=float)
    frame = pd.DataFrame({"id": [f"molecule {i}" for i in range(rows)]})
    frame["smiles"] = [SMILES[i % len(SMILES)] for i in range(rows)]
    frame["split"] = (["train", "train", "val", "test"] * rows)[:rows]
    frame["target"], frame["prediction"] = true, true + 0.1 * (true + 1)
    frame.loc[rows - 1, "id"] = NASTY
    frame.loc[0, "target"] = np.nan
    return frame


def record(name: str, smiles: str) -> Any:
    """Attention of two layers in which every node looks at all it can see alike."""
    from coset.graphs.pages.attention import attention_record
    from coset.graphs.pages.molecules import skeleton

    drawing = skeleton(smiles)
    nodes = len(drawing["symbols"])
    ends = [(i, j) for i, j, _ in drawing["bonds"]]
    edge_index = np.array([*ends, *((j, i) for i, j in ends)], dtype=int).reshape(-1, 2).T
    target = np.append(edge_index[1], np.arange(nodes))
    weight = 1 / np.bincount(target)[target]
    weights = np.broadcast_to(weight, (2, nodes, len(target)))
    return attention_record(
        id=name, smiles=smiles, edge_index=edge_index, internal=weights, external=weights,
        importance=np.linspace(0, 1, nodes) if nodes > 1 else None, importance_name="gradient norm", **drawing,
    )  # fmt: skip
