"""Trained networks for use elsewhere: a folder of safetensors, a config and a model card, without the data or pickles.

``config.json`` holds the recipe and all that a run's checkpoint knows of its data, ``model.safetensors`` the weights,
``README.md`` what a reader wants to know. :func:`coset.graphs.experiments.load_task` reads such a folder as it reads a
run's, so that ``coset predict``, ``embed`` and ``model.from`` take either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coset import __version__
from coset.core.errors import CosetError, require
from coset.core.files import LOCK, claimed_folder, takes_paths, write_bytes, write_json, write_text
from coset.core.outside import read_tensors, read_tree
from coset.graphs.data.graph_table import plural
from coset.runs.checkpoints import read_checkpoint
from coset.runs.folder import BEST, CERTIFICATE, CONFIG, PREDICTIONS, RunFolder
from coset.runs.recipes import load_run
from coset.runs.results import SPLITS, RunResults

WEIGHTS, CARD = "model.safetensors", "README.md"
MOST_ERRORS = 2000
"""Of the validation rows that a config keeps for intervals: evenly chosen quantiles of more."""


class Config(BaseModel):
    """What ``config.json`` must hold."""

    model_config = ConfigDict(extra="allow")

    recipe: dict[str, Any]
    targets: list[str] = Field(min_length=1)
    classes: list[str] = []
    node_features: list[int] | int | None = None
    edge_features: list[int] | int | None = None
    face_features: list[int] | int | None = None
    level: str = "graph"
    columns: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    data_identity: str | None = None
    validation_errors: dict[str, list[float]] = {}


@takes_paths
def export(run: Path, folder: Path) -> Path:
    """Write what is needed to use a run's network; returns the folder.

    Args:
        run: Folder of a finished run on graphs, molecules or complexes.
        folder: A new or empty one.

    Raises:
        CosetError: There is no such run, the folder holds something else, or another process writes it.
    """
    if folder.is_dir() and {file.name for file in folder.iterdir()} - {CONFIG, WEIGHTS, CARD, LOCK}:
        raise CosetError(f"{folder} is not empty; choose another folder")
    recipe: Any = load_run(run)  # a GraphRecipe, whose module builds on this one
    if recipe.kind != "graphs":
        raise CosetError(f"{run} holds a run of kind {recipe.kind}; networks on graphs and complexes are exported")
    metrics = RunFolder(run).metrics() if not is_exported(run) else read_config(run).metrics
    state = exported_state(run) if is_exported(run) else read_checkpoint(run / BEST)
    identity = {name: value for name, value in state["identity"].items() if name != "recipe"}
    kept = {name: metrics[name] for name in (*SPLITS, "baseline", "params", "best_epoch", "seed") if name in metrics}
    errors = read_config(run).validation_errors if is_exported(run) else _validation_errors(run, identity["targets"])
    plain = _without_places(recipe.model_dump(mode="json"))
    config = {
        "library_name": "coset", "coset_version": __version__, "recipe": plain,
        **identity, "metrics": kept, "data_identity": _data_identity(run, metrics), "validation_errors": errors,
    }  # fmt: skip
    weights = {name: value.contiguous().clone() for name, value in state["state_dict"].items()}
    content = require("safetensors.torch", "hub").save(weights, {"format": "pt"})
    with claimed_folder(folder):
        if folder.resolve() != run.resolve():
            (folder / CONFIG).unlink(missing_ok=True)  # the weights of one network never stand beside it of another
        write_bytes(folder / WEIGHTS, content)
        write_text(folder / CARD, model_card(config, _claims(run), not recipe.data.not_smiles))
        write_json(folder / CONFIG, config)
    return folder


def _data_identity(run: Path, metrics: Mapping[str, Any]) -> str | None:
    """Of what it was trained on: of a run in its metrics, of an exported network beside them."""
    return read_config(run).data_identity if is_exported(run) else metrics.get("data_identity")


def is_exported(folder: Path) -> bool:
    """Whether a folder holds an exported network, and no run."""
    return (folder / CONFIG).is_file() and not RunFolder(folder).holds_run()


def read_config(folder: Path) -> Config:
    """What an exported network says of itself.

    Raises:
        CosetError: It is missing or malformed.
    """
    try:
        return Config.model_validate(read_tree(folder / CONFIG))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CosetError(f"{folder / CONFIG}: {place}: {first['msg']}") from error


def exported_state(folder: Path) -> dict[str, Any]:
    """The same as a run's checkpoint holds: ``state_dict`` and ``identity``.

    Raises:
        CosetError: A file is missing or malformed.
    """
    config = read_config(folder)
    identity = config.model_dump(exclude={"metrics", "data_identity", "validation_errors"})
    return {"state_dict": read_tensors(folder / WEIGHTS), "identity": identity}


def model_card(config: Mapping[str, Any], claims: list[str], molecules: bool) -> str:
    """``README.md``: a YAML head as model hubs read it, then what the network predicts, how well, and how it is used.

    Args:
        config: Of the network.
        claims: Symmetries that were measured.
        molecules: Whether it predicts for SMILES.
    """
    recipe, metrics = config["recipe"], config["metrics"]
    model, task = recipe["model"]["name"], recipe["training"]["task"]
    names, data = ", ".join(config["targets"]), recipe["data"]["name"]
    tags = ["coset", model, "graph-machine-learning", *(["chemistry"] if molecules else [])]
    splits = [split for split in SPLITS if split in metrics]
    rows = [
        f"| {name} | " + " | ".join(f"{metrics[split].get(name, math.nan):.4g}" for split in splits) + " |"
        for name in (metrics[splits[-1]] if splits else ())
    ]
    example = '["CCO"]' if molecules else "graphs"
    table = [f"| metric | {' | '.join(splits)} |", f"| --- |{' --- |' * len(splits)}", *rows] if rows else []
    what = f"one of {', '.join(config['classes'])} ({names})" if config["classes"] else names
    lines = [
        "---", "library_name: coset", "tags:", *(f"- {tag}" for tag in tags), "---", "", f"# {recipe['name']}", "",
        f"{model} predicts {what} of {plural(config['level'])} ({task}); trained by Coset {config['coset_version']} "
        f"on `data.name={data}`, seed {recipe['seed']}, {metrics.get('params', 0):,} parameters.", "",
        *table, "", *(f"Measured symmetry: {claim}" for claim in claims), "",
        "```python", "from coset.graphs import Learner", "", 'learner = Learner.from_pretrained("FOLDER or hub id")',
        f"learner.predict({example})", f"learner.embed({example})", "```", "",
        "On the command line: `coset predict FOLDER new.csv --output predictions.csv`.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without folders of the machine it was made on."""
    data = {
        key: Path(value).name if key in ("path", "labels") and isinstance(value, str) else value
        for key, value in recipe["data"].items()
    }
    return {**recipe, "data": data, "model": {**recipe["model"], "from": None}}


def _validation_errors(run: Path, targets: list[str]) -> dict[str, list[float]]:
    """Absolute errors of the validation rows, sorted: what intervals are made of."""
    results, found = RunResults(run), dict[str, list[float]]()
    if results.has_classes or not (run / PREDICTIONS).is_file():
        return found
    val = results.predictions["split"] == "val"
    for name in targets:
        truth, guess = (results.values(kind, name)[val].to_numpy(float) for kind in ("target", "prediction"))
        errors = np.sort(np.abs(truth - guess))
        errors = errors[np.isfinite(errors)]
        if len(errors) > MOST_ERRORS:
            errors = errors[np.linspace(0, len(errors) - 1, MOST_ERRORS).round().astype(int)]
        found[name] = [float(f"{error:.6g}") for error in errors]
    return found


def _claims(run: Path) -> list[str]:
    if not (run / CERTIFICATE).is_file():
        return []
    return [
        f"{each['group']} -> {each['output']}, relative error {each['max_relative_error']:.1e}."
        for each in RunFolder(run).read_json(CERTIFICATE)
        if each.get("passed") and each.get("max_relative_error") is not None
    ]


def check_state(state: Mapping[str, torch.Tensor], network: torch.nn.Module, where: Path) -> None:
    """Refuse weights that are not those of the network.

    Raises:
        CosetError: A tensor is missing, unknown, or of another shape.
    """
    own = network.state_dict()
    wrong = next((name for name in (*own, *state) if name not in own or name not in state), None)
    wrong = wrong or next((name for name, value in own.items() if value.shape != state[name].shape), None)
    if wrong is not None:
        raise CosetError(f"{where} does not fit its config: tensor {wrong} is missing, unknown or of another shape")
