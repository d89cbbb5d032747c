"""``coset connect``: what lies between a user's own checkpoints, as they are and with their neurons matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import claimed_folder, write_json
from coset.core.outside import read_arrays
from coset.relations.kernels.threads import pytorch_threads
from coset.runs.folder import CURVES, METRICS
from coset.runs.recipes import load_run
from coset.weights.asymmetric.asymmetrize import fingerprint
from coset.weights.asymmetric.checkpoints import aligned, build_model, read_networks
from coset.weights.asymmetric.classification_data import Classification, data_without_graph, named_data
from coset.weights.asymmetric.comparison import Matching, averages, between, row
from coset.weights.asymmetric.connect_page import table_of, write_page
from coset.weights.asymmetric.connectivity import check_points, has_batch_norm, measure, plane
from coset.weights.asymmetric.ensembles import Ensemble, outputs
from coset.weights.asymmetric.experiments import ConnectivityRecipe
from coset.weights.asymmetric.networks import parameter_count
from coset.weights.state_files import save_tensors

MATCHINGS: tuple[Matching, ...] = ("weights", "activations")
MATCHING_ROWS = 5000  # of data, from which activations are matched
PLANE = 17


@pytorch_threads()
def connect(
    files: Sequence[Path], model: str, data: str | None, output: Path, *, match: str | None = None, points: int = 25,
    rows: int | None = None, seed: int = 0,
) -> tuple[list[str], list[list[str]], list[str]]:  # fmt: skip
    """Measure what lies between checkpoints of one architecture, and write a folder about it.

    Args:
        files: Two or more state dicts.
        model: ``file.py:function``, ``package.module:function``, or the folder of a run, with ``:variant``.
        data: ``digits``, ``mnist``, ``cifar10-small``, or an .npz of ``inputs``, ``targets`` and, if there are any,
            ``train_inputs``, ``train_targets``; ``None`` for the data of the run.
        output: Folder: page, numbers, curves, and every network but the first with its neurons matched.
        match: ``none``, ``weights``, ``activations``, or both with a comma; ``None`` for what is possible.
        points: Of each curve, odd.
        rows: Measure on the first so many rows.
        seed: Of the order in which weight matching visits groups.

    Returns:
        Columns and rows of a table, and notes.

    Raises:
        CosetError: Something cannot be read, or does not fit.
    """
    check_points(points)
    given = _read(files, model, data, rows)
    with claimed_folder(output):
        return _connected(given, model, data, output, match, points, seed)


def _connected(
    given: _Given, model: str, data: str | None, output: Path, match: str | None, points: int, seed: int
) -> tuple[list[str], list[list[str]], list[str]]:
    files = given.files
    asked, notes = _matchings(match, given.ensemble.model)
    forms, more = _forms(given, asked, match is not None, seed)
    pairs = list(combinations(range(len(files)), 2))
    measured = {name: _measured(some, pairs, given, points) for name, some in forms.items()}
    metrics = {
        "networks": _alone(given), "pairs": pairs, "forms": {name: result for name, (result, _) in measured.items()},
        "notes": notes + more, "command": _command(files, model, data), "model": model, **_facts(given),
    }  # fmt: skip
    curves = {name: drawn for name, (_, drawn) in measured.items()}
    _save_matched(given, forms, output)
    write_json(output / CURVES, curves)
    write_json(output / METRICS, metrics)
    table = table_of(metrics)
    write_page(output, metrics, curves, table)
    return *table, notes + more


@dataclass(frozen=True)
class _Given:
    """Checkpoints and data.

    Attributes:
        files: Of the networks.
        ensemble: The networks.
        data: All of it.
        test: What is measured on.
        statistics: Inputs for BatchNorm's statistics, where there are any.
    """

    files: Sequence[Path]
    ensemble: Ensemble
    data: Classification
    test: tuple[Tensor, Tensor]
    statistics: Tensor | None


def _read(files: Sequence[Path], model: str, data: str | None, rows: int | None) -> _Given:
    network, found = architecture(model, data)
    ensemble = read_networks(network, files)
    test = found.test if found.edge_index is not None else (found.test[0][:rows], found.test[1][:rows])
    _fits(ensemble, test)
    return _Given(files, ensemble, found, test, _statistics(ensemble, found))


def _forms(
    given: _Given, asked: Sequence[Matching], wanted: bool, seed: int
) -> tuple[dict[str, Ensemble], list[str]]:  # fmt: skip
    """The networks as they are and with their neurons matched; what is not ``wanted`` may fail, with a note."""
    forms = {"as they are": given.ensemble}
    inputs = given.data.train[0] if len(given.data.train[0]) else given.test[0]
    for how in asked:
        try:
            forms[f"matched by {how}"] = aligned(given.ensemble, how, inputs[:MATCHING_ROWS], seed)
        except CosetError as error:
            if wanted:
                raise
            return forms, [f"not matched: {error}"]
    return forms, []


def _measured(
    some: Ensemble, pairs: Sequence[tuple[int, int]], given: _Given, points: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers and curves of networks in one form."""
    test, statistics = given.test, given.statistics
    found = between(some, pairs, test, None, points=points, statistics=statistics)
    result = found.summary() | {"averages": averages(some, test, number=len(given.files), statistics=statistics)}
    curve = found.test
    drawn: dict[str, Any] = {"t": curve[0].t.tolist()}
    drawn |= {quantity: [getattr(c, quantity).tolist() for c in curve] for quantity in QUANTITIES}
    if len(given.files) > 2:
        drawn["plane"] = _plane(some, test, statistics)
    return result, drawn


def _save_matched(given: _Given, forms: Mapping[str, Ensemble], output: Path) -> None:
    """Every network but the first in the forms in which its neurons are matched."""
    for name, some in list(forms.items())[1:]:
        for i, file in enumerate(given.files[1:], start=1):
            save_tensors(row(some.state, i), output / f"{file.stem}-{i + 1}-{name.replace(' ', '-')}.safetensors")


def _command(files: Sequence[Path], model: str, data: str | None) -> str:
    return f"coset connect {' '.join(map(str, files))} --model {model}" + (f" --data {data}" if data else "")


def _facts(given: _Given) -> dict[str, Any]:
    network = given.ensemble.model
    own = {"fingerprint": fingerprint(network), "params": parameter_count(network)}
    return {"data": given.data.name, "rows": len(given.test[0]), **own}


def _alone(given: _Given) -> list[dict[str, Any]]:
    """Loss and accuracy of every network by itself."""
    alone = measure(given.ensemble.model, given.ensemble.state, given.test, statistics=given.statistics)
    return [
        {"file": str(file), "loss": float(loss), "accuracy": float(accuracy)}
        for file, loss, accuracy in zip(given.files, alone.loss, alone.accuracy, strict=True)
    ]


QUANTITIES = ("loss", "accuracy")


def architecture(model: str, data: str | None) -> tuple[nn.Module, Classification]:
    """The network that ``--model`` names, and the data.

    Raises:
        CosetError: One of them is missing or wrong.
    """
    place, _, variant = model.partition(":") if not Path(model).is_dir() else (model, "", "")
    if not Path(place).is_dir():
        if data is None:
            raise CosetError(f"--data is needed beside --model {model}: {', '.join(data_without_graph())}, or an .npz")
        return build_model(model), read_data(data)
    recipe = load_run(Path(place))
    if not isinstance(recipe, ConnectivityRecipe):
        raise CosetError(f"{place} holds a run of kind {recipe.kind}; a run of kind mode-connectivity is needed")
    found = recipe.data.load(recipe.seed)
    network = recipe.variant(variant or next(iter(recipe.variants)), found)
    return network, found if data is None else read_data(data)


def read_data(name: str) -> Classification:
    """A data set that comes with the package, or arrays of the user's.

    Raises:
        CosetError: There is no such data, or arrays are missing or of the wrong form.
    """
    if name in data_without_graph():
        return named_data(name)
    path = Path(name)
    if not path.is_file():
        raise CosetError(f"--data {name}: no such file, and none of {', '.join(data_without_graph())}")
    arrays = read_arrays(path)
    if missing := {"inputs", "targets"} - set(arrays):
        raise CosetError(f"--data {name} lacks {sorted(missing)[0]}: it must hold inputs and targets (classes)")
    test = _rows(name, arrays["inputs"], arrays["targets"], "")
    train = (test[0][:0], test[1][:0])
    if "train_inputs" in arrays and "train_targets" in arrays:
        train = _rows(name, arrays["train_inputs"], arrays["train_targets"], "train_")
        if train[0].shape[1:] != test[0].shape[1:]:
            raise CosetError(
                f"--data {name}: a row of train_inputs has shape {tuple(train[0].shape[1:])}, one of inputs "
                f"{tuple(test[0].shape[1:])}"
            )
    return Classification(path.name, train, test, int(test[1].max()) + 1)


def _rows(name: str, inputs: np.ndarray, targets: np.ndarray, which: str) -> tuple[Tensor, Tensor]:
    if inputs.ndim == 0 or len(inputs) == 0:
        raise CosetError(f"--data {name}: {which}inputs holds no rows")
    if targets.ndim != 1 or targets.dtype.kind not in "iu" or len(targets) != len(inputs):
        raise CosetError(
            f"--data {name}: {which}targets must be as many whole numbers as {which}inputs has rows ({len(inputs)}), "
            f"not {targets.dtype} of shape {targets.shape}"
        )
    x = torch.from_numpy(inputs)
    x = x.float() if inputs.dtype.kind == "f" else x.long()
    if len(broken := (~x.reshape(len(x), -1).isfinite().all(1)).nonzero()):
        raise CosetError(f"--data {name}: {which}inputs is not finite in row {int(broken[0])} (from 0)")
    if len(negative := np.flatnonzero(targets < 0)):
        raise CosetError(
            f"--data {name}: {which}targets holds {targets[negative[0]]} in row {negative[0]} (from 0): classes are "
            "counted from 0"
        )
    return x, torch.from_numpy(targets.astype(np.int64))


def _fits(ensemble: Ensemble, test: tuple[Tensor, Tensor]) -> None:
    """Whether the network takes the inputs, and answers with a score for each class."""
    x = test[0] if hasattr(ensemble.model, "edge_index") else test[0][:2]
    try:
        with torch.no_grad():
            found = ensemble.network(0).eval()(x)
            if isinstance(found, Tensor):
                found = outputs(ensemble.model.eval(), ensemble[:1].state, x)[0]
    except Exception as error:  # whatever a user's forward raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CosetError(f"the network does not take inputs of shape {tuple(x.shape)}: {reason}") from error
    if not isinstance(found, Tensor):
        raise CosetError(f"the network gives a {type(found).__name__}, not one tensor of a score for each class")
    classes = int(test[1].max()) + 1
    if found.dim() != 2 or found.size(1) < classes:
        raise CosetError(
            f"the network gives {tuple(found.shape)} for {len(x)} rows, and targets go up to {classes - 1}"
        )


def _statistics(ensemble: Ensemble, data: Classification) -> Tensor | None:
    if not has_batch_norm(ensemble.model):
        return None
    if not len(data.train[0]):
        raise CosetError(
            "the network has BatchNorm, whose statistics are measured anew at every point: put train_inputs and "
            "train_targets into the data"
        )
    return data.train[0]


def _matchings(match: str | None, model: nn.Module) -> tuple[list[Matching], list[str]]:
    if match == "none":
        return [], []
    asked = MATCHINGS if match is None else tuple(match.split(","))
    for how in asked:
        if how not in MATCHINGS:
            raise CosetError(f"--match {match}: choose none, weights, activations, or weights,activations")
    if fingerprint(model):
        if match is not None:
            raise CosetError("asymmetric networks have no neurons that can be permuted: --match none")
        return [], ["asymmetric networks have no neurons that can be permuted: not matched"]
    return [how for how in MATCHINGS if how in asked], []


def _plane(some: Ensemble, test: tuple[Tensor, Tensor], statistics: Tensor | None) -> dict[str, Any] | None:
    try:
        found = plane(some, test, resolution=PLANE, statistics=statistics)
    except CosetError:  # on a line
        return None
    return {key: getattr(found, key).tolist() for key in ("x", "y", "loss", "corners")}
