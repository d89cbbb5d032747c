"""``coset connect``: what lies between a user's own checkpoints, as they are and with their neurons matched."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.files import write_json
from coset.reports import Panel, Section, Table, write_sections
from coset.runs.folder import CURVES, METRICS, REPORT
from coset.runs.recipes import load_run
from coset.weights.asymmetric.asymmetrize import fingerprint
from coset.weights.asymmetric.checkpoints import aligned, build_model, read_networks
from coset.weights.asymmetric.classification_data import Classification, digits, mnist, small_cifar10
from coset.weights.asymmetric.comparison import Matching, averages, between, row, spread
from coset.weights.asymmetric.connectivity import has_batch_norm, measure, plane
from coset.weights.asymmetric.ensembles import Ensemble, outputs
from coset.weights.asymmetric.experiments import ConnectivityRecipe
from coset.weights.asymmetric.networks import parameter_count
from coset.weights.asymmetric.pages import between_figure, plane_figure
from coset.weights.state_files import save_tensors

MATCHINGS: tuple[Matching, ...] = ("weights", "activations")
KNOWN = {"digits": lambda: digits(0), "mnist": mnist, "cifar10-small": small_cifar10}
MATCHING_ROWS = 5000  # of data, from which activations are matched
PLANE = 17


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
    network, found = architecture(model, data)
    given = "" if data is None else f" --data {data}"
    ensemble = read_networks(network, files)
    test = found.test if found.edge_index is not None else (found.test[0][:rows], found.test[1][:rows])
    _fits(ensemble, test)
    statistics = _statistics(ensemble, found)
    asked, notes = _matchings(match, network)
    output.mkdir(parents=True, exist_ok=True)
    pairs = list(combinations(range(len(files)), 2))
    forms = {"as they are": ensemble}
    for how in asked:
        inputs = found.train[0] if len(found.train[0]) else test[0]
        try:
            forms[f"matched by {how}"] = aligned(ensemble, how, inputs[:MATCHING_ROWS], seed)
        except CosetError as error:
            if match is not None:
                raise
            notes.append(f"not matched: {error}")
            break
        for i in range(1, len(files)):
            saved = output / f"{files[i].stem}-{i + 1}-matched-by-{how}.safetensors"
            save_tensors(row(forms[f"matched by {how}"].state, i), saved)
    results: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for name, some in forms.items():
        between_pairs = between(some, pairs, test, None, points=points, statistics=statistics)
        results[name] = between_pairs.summary() | {
            "averages": averages(some, test, number=len(files), statistics=statistics)
        }
        curve = between_pairs.test
        curves[name] = {"t": curve[0].t.tolist(), **{k: [getattr(c, k).tolist() for c in curve] for k in QUANTITIES}}
        if len(files) > 2:
            curves[name]["plane"] = _drawn(some, test, statistics)
    alone = measure(network, ensemble.state, test, statistics=statistics)
    metrics = {
        "networks": [
            {"file": str(file), "loss": float(loss), "accuracy": float(accuracy)}
            for file, loss, accuracy in zip(files, alone.loss, alone.accuracy, strict=True)
        ],
        "pairs": pairs, "forms": results, "model": model, "data": found.name, "rows": len(test[0]), "notes": notes,
        "command": f"coset connect {' '.join(map(str, files))} --model {model}{given}",
        "fingerprint": fingerprint(network), "params": parameter_count(network),
    }  # fmt: skip
    write_json(output / CURVES, curves)
    write_json(output / METRICS, metrics)
    _page(output, metrics, curves)
    return *_table(metrics), notes


QUANTITIES = ("loss", "accuracy")


def architecture(model: str, data: str | None) -> tuple[nn.Module, Classification]:
    """The network that ``--model`` names, and the data.

    Raises:
        CosetError: One of them is missing or wrong.
    """
    place, _, variant = model.partition(":") if not Path(model).is_dir() else (model, "", "")
    if not Path(place).is_dir():
        if data is None:
            raise CosetError(f"--data is needed beside --model {model}: {', '.join(KNOWN)}, or an .npz")
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
    if name in KNOWN:
        return KNOWN[name]()
    path = Path(name)
    if not path.is_file():
        raise CosetError(f"--data {name}: no such file, and none of {', '.join(KNOWN)}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, AttributeError) as error:
        raise CosetError(f"--data {name} is not an .npz of plain arrays: {error}") from error
    if missing := {"inputs", "targets"} - set(arrays):
        raise CosetError(f"--data {name} lacks {sorted(missing)[0]}: it must hold inputs and targets (classes)")
    test = _rows(name, arrays["inputs"], arrays["targets"], "")
    train = (test[0][:0], test[1][:0])
    if "train_inputs" in arrays and "train_targets" in arrays:
        train = _rows(name, arrays["train_inputs"], arrays["train_targets"], "train_")
    return Classification(path.name, train, test, int(test[1].max()) + 1)


def _rows(name: str, inputs: np.ndarray, targets: np.ndarray, which: str) -> tuple[Tensor, Tensor]:
    if targets.ndim != 1 or targets.dtype.kind not in "iu" or len(targets) != len(inputs) or not len(targets):
        raise CosetError(
            f"--data {name}: {which}targets must be as many whole numbers as {which}inputs has rows ({len(inputs)}), "
            f"not {targets.dtype} of shape {targets.shape}"
        )
    x = torch.from_numpy(inputs)
    return x.float() if inputs.dtype.kind == "f" else x.long(), torch.from_numpy(targets.astype(np.int64))


def _fits(ensemble: Ensemble, test: tuple[Tensor, Tensor]) -> None:
    """Whether the network takes the inputs, and answers with a score for each class."""
    x = test[0] if hasattr(ensemble.model, "edge_index") else test[0][:2]
    try:
        with torch.no_grad():
            found = outputs(ensemble.model.eval(), ensemble[:1].state, x)[0]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise CosetError(
            f"the network does not take inputs of shape {tuple(x.shape)}: {str(error).splitlines()[0]}"
        ) from error
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


def _drawn(some: Ensemble, test: tuple[Tensor, Tensor], statistics: Tensor | None) -> dict[str, Any] | None:
    try:
        found = plane(some, test, resolution=PLANE, statistics=statistics)
    except CosetError:  # on a line
        return None
    return {key: getattr(found, key).tolist() for key in ("x", "y", "loss", "corners")}


def _table(metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, r in metrics["forms"].items():
        numbers = [spread(r[key]) for key in ("barrier", "highest", "midpoint_accuracy", "end_accuracy", "distance")]
        rows.append([name, *numbers, f"{r['averages']['average_accuracy']:.3f}"])
    return ["networks", "barrier", "highest", "midpoint", "ends", "distance", "average"], rows


def _page(output: Path, metrics: dict[str, Any], curves: dict[str, Any]) -> None:
    columns, rows = _table(metrics)
    own = [[str(i + 1), n["file"], n["loss"], n["accuracy"]] for i, n in enumerate(metrics["networks"])]
    pairs = [
        [f"{i + 1} and {j + 1}", name, *(r[key][k] for key in ("barrier", "highest", "midpoint_accuracy", "distance"))]
        for name, r in metrics["forms"].items()
        for k, (i, j) in enumerate(metrics["pairs"])
    ]
    sections = [
        Section("Networks", "Each alone.", [Table(["", "file", "loss", "accuracy"], own)]),
        Section(
            "Between them",
            "The barrier is the loss at the midpoint above the mean of both ends; highest is the largest height above "
            "the chord; mean and standard deviation over pairs. Matched networks have their neurons in the order that "
            "brings them closest to network 1. Average: accuracy of the averaged weights of all.",
            [Table(columns, rows), Table(["pair", "networks", "barrier", "highest", "midpoint", "distance"], pairs)],
            [
                Panel("Loss between two networks", between_figure(curves, "loss")),
                Panel("Accuracy between two networks", between_figure(curves, "accuracy")),
            ],
            notes=metrics["notes"],
        ),
    ]
    planes = [Panel(name, plane_figure(c["plane"])) for name, c in curves.items() if c.get("plane")]
    if planes:
        text = "Loss on the plane through the first three networks (crosses); axes are lengths in parameter space."
        sections.append(Section("Planes through three networks", text, panels=planes))
    write_sections(
        output / REPORT, "Between networks", sections,
        facts={"model": metrics["model"], "data": f"{metrics['data']}, {metrics['rows']:,} rows",
               "parameters": f"{metrics['params']:,}"},
        command=metrics["command"],
    )  # fmt: skip
