"""What a comparison on LoRAs leaves behind, and predictions from it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from coset.core.errors import CosetError
from coset.core.files import replacing, write_text
from coset.core.outside import escaped, read_header, read_saved
from coset.relations.kernels.threads import pytorch_threads
from coset.runs.folder import BEST, HISTORY, PREDICTIONS, RunFolder
from coset.runs.run import write_certificate
from coset.symmetry import EquivarianceReport, verify_claims
from coset.weights.lora.collections import Collection
from coset.weights.lora.comparison import Problem, Units
from coset.weights.lora.data.adapters import LoraAdapter
from coset.weights.lora.data.factors import Factors, Layout, select, stack
from coset.weights.lora.data.finding import Found, adapters_below
from coset.weights.lora.data.magnitudes import Magnitudes
from coset.weights.lora.data.reading import FILES, load_lora
from coset.weights.lora.data.survey import Facts, beside_factors, named
from coset.weights.lora.data.writing import check_whole
from coset.weights.lora.models.fitting import Task, predict
from coset.weights.lora.models.registry import LORA_MODELS, ModelSizes, Setting

CERTIFIED = 4  # adapters that a symmetry is measured on


@dataclass(frozen=True)
class SavedRun:
    """The best model of a finished run, ready to predict.

    Attributes:
        name: Of the model.
        model: With its weights.
        layout: Layers that it reads, without magnitudes.
        rank: Of the adapters it was fitted to.
        units: Of its targets.
        targets: Their names.
        example: Factors of one training adapter (magnitudes with them).
        reference: What is taken off magnitudes, where the model sees them.
        renamed: Whether layers go by the names of their modules.
    """

    name: str
    model: nn.Module
    layout: Layout
    rank: int
    units: Units
    targets: list[str]
    example: Factors
    reference: Magnitudes | None = None
    renamed: bool = False

    def predict(self, adapter: LoraAdapter) -> list[float]:
        """One number a target.

        Raises:
            CosetError: A layer has another shape, the rank is too large for the model, or magnitudes are missing.
        """
        free = LORA_MODELS[self.name].any_rank
        factors = stack([adapter], self.layout, max(adapter.rank, self.rank) if free else self.rank)
        if self.reference is not None:
            own = Magnitudes.of([adapter], self.reference.groups)
            factors = own.join(self.layout, factors, self.reference)[1]
        return self.units.restore(self.name, predict(self.model, factors)[0]).tolist()


def write_best(
    folder: RunFolder, best: str, model: nn.Module, problem: Problem, data: Collection, units: Units,
    targets: list[str], reference: Magnitudes | None,
) -> None:  # fmt: skip
    """Checkpoint, predictions and certificate of the best model."""
    saved: dict[str, Any] = {
        "model": best, "state": model.state_dict(), "groups": [[list(s), list(n)] for s, n in data.layout.groups],
        "rank": problem.rank, "renamed": data.renamed, "targets": targets,
        "centre": units.centre, "spread": units.spread,
        "example": [list(pair) for pair in select(problem.factors, problem.splits["train"][:1])],
    }  # fmt: skip
    if reference is not None:
        saved["magnitudes"] = [[[n, list(g)], m] for (n, g), m in zip(reference.groups, reference.values, strict=True)]
    with replacing(folder / BEST) as part:
        torch.save(saved, part)
    table = pd.DataFrame({"id": data.names})
    for split, rows in problem.splits.items():
        table.loc[rows.numpy(), "split"] = split
    truth = problem.targets * units.spread + units.centre
    found = units.restore(best, predict(model, problem.factors))
    for i, name in enumerate(targets):
        table[f"target_{name}"], table[f"prediction_{name}"] = truth[:, i].numpy(), found[:, i].numpy()
    folder.write_text(PREDICTIONS, table.to_csv(index=False))
    write_certificate(folder, certify(model, select(problem.factors, slice(0, CERTIFIED))))


def write_history(folder: RunFolder, histories: Mapping[str, list[dict[str, float]]]) -> None:
    """Losses of all models by epoch."""
    frames = [pd.DataFrame(rows).assign(model=name) for name, rows in histories.items() if rows]
    if frames:
        folder.write_text(HISTORY, pd.concat(frames).to_csv(index=False))


def certify(model: nn.Module, factors: Factors) -> list[EquivarianceReport]:
    """The claims of a model in float64; none for one without symmetry."""
    claims = model.symmetry()  # type: ignore[operator]
    return verify_claims(model, factors, claims=claims) if claims else []


def load_best(folder: RunFolder, *, task: Task, sizes: ModelSizes, seed: int) -> SavedRun:
    """The best model of a run.

    Args:
        folder: Of the run.
        task: Of its recipe.
        sizes: Of its recipe's models.
        seed: Of its recipe.

    Raises:
        CosetError: The run is not finished.
    """
    if not (folder / BEST).is_file():
        raise CosetError(f"{folder} holds no finished run on a collection of LoRAs: {BEST} is missing")
    saved = read_saved(folder / BEST)
    layout = Layout(tuple(((n, m), tuple(names)) for (n, m), names in saved["groups"]))
    example: Factors = tuple((u, v) for u, v in saved["example"])
    reference, full = None, layout
    if "magnitudes" in saved:
        groups = tuple((n, tuple(names)) for (n, names), _ in saved["magnitudes"])
        reference = Magnitudes(groups, tuple(m for _, m in saved["magnitudes"]))
        full = reference.join(layout, example[: len(layout.groups)], reference)[0]
    setting = Setting(full, select(example, [0, 0]), len(saved["targets"]), sizes, seed)
    model = LORA_MODELS[saved["model"]].restored(setting, saved["state"])
    units = Units(task, saved["centre"], saved["spread"])
    return SavedRun(
        saved["model"], model, layout, saved["rank"], units, saved["targets"], example, reference,
        saved.get("renamed", False),
    )  # fmt: skip


@pytorch_threads()
def predict_adapters(
    saved: SavedRun, data: Path, output: Path, skip_bad: bool = False, lossy: bool = False
) -> tuple[int, tuple[str, ...]]:
    """Predictions for every adapter of a folder, as CSV; returns how many, and notes.

    Args:
        saved: The run.
        data: An adapter, or a folder of them.
        output: The CSV.
        skip_bad: Leave out adapters that do not fit; an error otherwise.
        lossy: Take adapters whose files hold more than their factors, or do not tell their scale; notes say which.

    Raises:
        CosetError: An adapter does not fit the run, or is more than its factors; or something else than predictions is
            at ``output``.
    """
    if output.is_file() and not all(re.fullmatch("id|prediction_.*", column) for column in read_header(output)):
        raise CosetError(f"{output} exists already and holds no predictions: choose another output")
    single = data.is_file() or any((data / name).is_file() for name in ("adapter_config.json", *FILES))
    found = Found([data], []) if single else adapters_below(data)
    rows, notes, dora, seen = [], [*found.notes], 0, dict[str, Facts]()
    for path in found.paths:
        name = path.name if single else str(path.relative_to(data))
        try:
            adapter = named(load_lora(path), saved.renamed)
            said = _fit(saved, adapter, name, lossy)
            values = saved.predict(adapter)
            if not all(map(math.isfinite, values)):
                raise CosetError(f"{name}: the prediction is not a finite number")
            rows.append([name, *values])
        except CosetError as error:
            if not skip_bad:
                raise CosetError(f"{error} (--skip-bad-rows leaves it out)") from error
            notes.append(f"skipped {error}")
            continue
        notes += said
        seen[name] = Facts.of(adapter, "")
        dora += any(pair.magnitude is not None for pair in adapter.layers.values())
    notes += beside_factors(seen)
    if dora and saved.reference is None:
        notes.append(f"the model does not see DoRA's magnitudes, which {dora} of {len(rows)} adapters have")
    table = pd.DataFrame(rows, columns=["id", *(f"prediction_{t}" for t in saved.targets)])
    write_text(output, escaped(table).to_csv(index=False))
    return len(rows), tuple(notes)


def _fit(saved: SavedRun, adapter: LoraAdapter, name: str, lossy: bool) -> list[str]:
    """What a reader of a prediction should know of how an adapter fits the run.

    Raises:
        CosetError: It has none of the run's layers, or is more than its factors.
    """
    if not lossy:
        check_whole(adapter)
    layers = saved.layout.names
    missing = [layer for layer in layers if layer not in adapter.layers]
    if len(missing) == len(layers):
        raise CosetError(f"{name} has none of the layers that the run was trained on ({missing[0]}, ...)")
    notes = [f"{name}: {what}" for what in adapter.obstacles]
    if missing:
        notes.append(f"{name} lacks {len(missing)} of {len(layers)} layers: taken as zero updates")
    known = set(layers)
    others = [layer for layer in adapter.layers if layer not in known]
    if others:
        notes.append(f"{name} has {len(others)} layers that the run never saw: left out ({others[0]}, ...)")
    return notes
