"""A page of every kind, made of what small runs have left (``kept``) or of made-up results: nothing is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from made_up_runs import write_run

KEPT = Path(__file__).parent / "kept"
SMILES = ["CCO", "c1ccccc1", "CCN", "CC(C)Cl", "C1CC1", "OCC(N)=O"]


def of_a_run(name: str) -> Callable[[Path], Path]:
    """The page that the kind of a kept run writes."""

    def page(folder: Path) -> Path:
        from coset.runs.recipes import load_run

        shutil.copytree(KEPT / name, folder / name)
        run = load_run(folder / name)
        return run.page(run.folder(folder / name), run.folder(folder / name).metrics())

    return page


def regression(folder: Path) -> Path:
    """One target, attention, a broken claim, names that try to break the page."""
    from coset.graphs.pages.attention import write_attention
    from coset.graphs.pages.run_report import write_report

    run = write_run(folder / "run")
    write_attention(run, [_attention(f"molecule {k}", text) for k, text in enumerate(SMILES[:2])])
    return write_report(run)


def _attention(name: str, smiles: str) -> Any:
    """Attention of two layers, each its own."""
    from coset.graphs.pages.attention import attention_record
    from coset.graphs.pages.molecules import skeleton

    drawing, rng = skeleton(smiles), np.random.default_rng(0)
    nodes, ends = len(drawing["symbols"]), [(i, j) for i, j, _ in drawing["bonds"]]
    edge_index = np.array([*ends, *((j, i) for i, j in ends)], dtype=int).reshape(-1, 2).T
    weights = rng.uniform(0.05, 1, size=(2, nodes, edge_index.shape[1] + nodes))
    return attention_record(
        id=name, smiles=smiles, edge_index=edge_index, internal=weights / 3, external=weights[::-1] / 3,
        importance=np.linspace(0, 1, nodes), importance_name="gradient norm", **drawing,
    )  # fmt: skip


def multiclass(folder: Path) -> Path:
    """Three classes, and probabilities that are sure of them."""
    from coset.graphs.pages.run_report import write_report

    rng, classes = np.random.default_rng(0), ["alcohol", "alkane", "an amine of a rather long name"]
    made = folder / "run"
    made.mkdir()
    shares = rng.dirichlet([1, 1, 1], size=90)
    true = [classes[int(rng.choice(3, p=share))] for share in shares]
    frame = pd.DataFrame({"id": range(90), "smiles": [SMILES[k % 6] for k in range(90)]})
    frame["split"] = ["train", "val", "test"] * 30
    frame["target_kind"], frame["prediction_kind"] = true, [classes[k] for k in shares.argmax(1)]
    for place, name in enumerate(classes):
        frame[f"probability_{name}"] = shares[:, place]
    frame.to_csv(made / "predictions.csv", index=False)
    (made / "recipe.yaml").write_text("kind: graphs\ntraining:\n  task: multiclass\n  monitor: accuracy\nseed: 0\n")
    scores = {"accuracy": float((frame["target_kind"] == frame["prediction_kind"]).mean()), "macro_f1": 0.6}
    (made / "metrics.json").write_text(json.dumps({"recipe": "gin/kinds", "train": scores, "test": scores}))
    return write_report(made)


def cells(folder: Path) -> Path:
    """A square cut in two, one triangle marked."""
    from coset.graphs.pages.run_report import write_report
    from coset.topology.pages import cell_record, write_cells

    run = write_run(folder / "run")
    (run / "attention.json").unlink()
    square = {"positions": [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "faces": [(0, 1, 2), (0, 2, 3)]}
    edges = [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)]
    weights = np.array([[4.0, 0], [0, 1], [0, 0], [0, 0]])
    write_cells(run, [cell_record(id="square", edges=edges, ranks=(0, 2), weights=weights, **square)])
    return write_report(run)


def live(folder: Path) -> Path:
    """In the middle of training."""
    from coset.reports.live import Progress, write_progress

    rows = [{"epoch": k, "train_loss": 1 / (k + 1), "val_rmse": 2 / (k + 1), "val_r2": 1 - 1 / (k + 1)}
            for k in range(12)]  # fmt: skip
    write_progress(folder / "page.html", Progress("gin/freesolv", "epoch 12 of 40", 30.0, 40, "val_rmse", rows))
    return folder / "page.html"


def comparison(folder: Path) -> Path:
    """Two recipes, two seeds each."""
    from coset.runs.comparison import write_comparison

    runs = [write_run(folder / f"{recipe}-{seed}", recipe=f"{recipe}/made-up", seed=seed, error=error + 0.1 * seed)
            for recipe, error in (("gin", 0.5), ("subgraphormer", 0.3)) for seed in range(2)]  # fmt: skip
    return write_comparison(runs, folder / "comparison.html")


def runs(folder: Path) -> Path:
    """The table of all runs of a folder."""
    from coset.cli.table import _write_page
    from coset.runs.table import columns_of, runs_below

    for seed in range(3):
        write_run(folder / f"run-{seed}", seed=seed)
    rows = runs_below(folder)
    _write_page(folder / "runs.html", folder, columns_of(rows, []), rows)
    return folder / "runs.html"


def adapter_map(folder: Path) -> Path:
    from coset.weights.lora.pages import write_map

    rng = np.random.default_rng(0)
    names, labels = [f"adapter-{k}" for k in range(40)], pd.Series(np.arange(40) % 3, name="kind").map(str)
    write_map(folder / "map.html", names, rng.normal(size=(40, 2)), labels, "40 adapters")
    return folder / "map.html"


def adapter(folder: Path) -> Path:
    from coset.weights.lora import LoraAdapter, LoraPair, inspect
    from coset.weights.lora.pages import write_inspection

    generator = torch.Generator().manual_seed(0)
    names = [f"base_model.model.encoder.layer.{block}.attention.self.{part}" for block in range(6) for part in
             ("query", "value", "output.dense")]  # fmt: skip
    pairs = {name: LoraPair(torch.randn(24, 4, generator=generator), torch.randn(24, 4, generator=generator))
             for name in names}  # fmt: skip
    return write_inspection(folder / "adapter.html", inspect(LoraAdapter(pairs, "style")))


def connection(folder: Path) -> Path:
    from coset.weights.asymmetric.connect_page import table_of, write_page

    metrics, curves = (json.loads((KEPT / "connection" / name).read_text()) for name in ("metrics.json", "curves.json"))
    write_page(folder, metrics, curves, table_of(metrics))
    return folder / "report.html"


def audit(folder: Path) -> Path:
    """Of a network of one hidden layer with random weights, without controls."""
    from safetensors.torch import save_file

    from coset.privacy.file_audit import FileAudit

    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    shapes = {"0.weight": (12, 16), "0.bias": (12,), "2.weight": (1, 12), "2.bias": (1,)}
    save_file({k: torch.randn(*s, generator=generator) for k, s in shapes.items()}, folder / "model.safetensors")
    labels = np.array([-1.0, 1.0])
    np.savez(folder / "data.npz", x_train=rng.normal(size=(6, 16)), y_train=np.tile(labels, 3),
             x_test=rng.normal(size=(20, 16)), y_test=np.tile(labels, 10))  # fmt: skip
    FileAudit(weights=folder / "model.safetensors", data=folder / "data.npz", steps=5, plant=False).run(
        folder / "audit", quiet=True
    )
    return folder / "audit" / "report.html"


def viewer(folder: Path) -> Path:
    """A scene of sixty points, reconstructed by an untrained network."""
    from coset.motion.data.scenes import SceneOptions, make_scene
    from coset.motion.models.trackster4d import TracksTo4D
    from coset.motion.reconstruct import Options, reconstruct
    from coset.motion.viewer import write_viewer

    scene = make_scene("boxes", SceneOptions(points=60, frames=14), 3)
    sizes = {"width": 16, "blocks": 1, "heads": 2, "head_width": 8, "hidden": 16, "basis": 5, "octaves": 4, "kernel": 7}
    network = TracksTo4D(**sizes, orbit=True).eval()
    result = reconstruct(scene.tracks, network, Options(refine="bundle"))
    frames = np.tile(np.linspace(40, 200, 80, dtype=np.uint8)[None, None, :, None], (14, 60, 1, 3))
    write_viewer(result, folder / "index.html", "video.mp4 in 3D", frames)
    return folder / "index.html"


PAGES: dict[str, Callable[[Path], Path]] = {
    "a run": regression, "a run on classes": multiclass, "a run on complexes": cells, "a live run": live,
    "a comparison": comparison, "a table of runs": runs, "a sweep": of_a_run("sweep"), "LoRAs": of_a_run("lora"),
    "a collection": of_a_run("collection"), "a map": adapter_map, "an adapter": adapter, "a connection": connection,
    "mode connectivity": of_a_run("mode-connectivity"), "metanetworks": of_a_run("metanet"),
    "Bayesian training": of_a_run("bayesian-depth"), "merging": of_a_run("merging"),
    "reconstruction": of_a_run("reconstruction"), "an audit": audit, "motion": of_a_run("motion"), "the viewer": viewer,
}  # fmt: skip
