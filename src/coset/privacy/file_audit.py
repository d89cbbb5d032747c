"""``coset audit``: an audit of a model and data that are files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from coset.core.files import claimed_folder, write_arrays, write_json, write_text
from coset.core.outside import escaped
from coset.privacy.audit import Audit, audit, default_attack, load_network
from coset.privacy.experiments import RECONSTRUCTIONS
from coset.privacy.groups import FiniteGroup, group_of
from coset.privacy.inputs import load_inputs
from coset.privacy.models.modules import load_module
from coset.privacy.pages import write_audit
from coset.privacy.reconstruction import Attack
from coset.privacy.scores import aligned, nearest
from coset.privacy.stationarity import known_loss
from coset.runs.folder import METRICS
from coset.runs.terminal import progress

Samples = tuple[Tensor, Tensor]
RECORDS = "found.csv"
"""Of tables: what was found that is most like each training record, in the order of these."""


@dataclass(frozen=True, kw_only=True)
class FileAudit:
    """What is audited, and how.

    Attributes:
        weights: safetensors, or a state dict that ``torch.save`` wrote.
        data: NPZ of training and held-out inputs with labels, or a table of training records.
        held_out: A table of others.
        target: Column of tables that holds the labels.
        group: Under which the network is invariant; averaged over unless ``model`` is given, and checked.
        loss: ``mse`` or ``logistic``.
        weight_decay: Of training, if known.
        steps: Of a search by descent; by default the attack is chosen for the network.
        restarts: Side by side.
        seed: Of their starts.
        model: ``FILE.py:NAME`` that makes the network; a ReLU network of linear layers if left out.
        part: Candidates at a time.
        plant: Whether to train and attack the controls.
    """

    weights: Path
    data: Path
    held_out: Path | None = None
    target: str | None = None
    group: str = "plain"
    loss: str = "logistic"
    weight_decay: float | None = None
    steps: int | None = None
    restarts: int = 1
    seed: int = 0
    model: str | None = None
    part: int | None = None
    plant: bool = True

    def run(self, output: Path, quiet: bool = False) -> Audit:
        """Read, measure, write ``metrics.json``, ``reconstructions.npz``, ``report.html``; of tables ``found.csv`` too.

        Args:
            output: Folder.
            quiet: No progress bar.

        Raises:
            CosetError: A file or the model cannot be used; nothing is written then.
        """
        known_loss(self.loss)
        train, held_out, shape, columns = load_inputs(self.data, self.held_out, self.target)
        network, table = self._network(shape)
        loss = self.loss
        if network(train[0][:1]).dim() == 2:
            train, held_out, loss = _as_classes(train), _as_classes(held_out), "ce"
        drawn = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
        picture = (drawn[0], drawn[1]) if len(drawn) == 2 and self.group != "sets" else None
        with claimed_folder(output):
            searches = 3 if self.plant else 1
            with progress("looking for training inputs, and for canaries", 101 * searches, quiet) as each:
                result = audit(
                    network, train, held_out, group=table, loss=loss, weight_decay=self.weight_decay,
                    attack=self._attack(network, train[0]), picture=picture, plant=self.plant, progress=each,
                )  # fmt: skip
            self._write(output, result, train[0], held_out[0], table, picture, columns)
        return result

    def _write(
        self, output: Path, result: Audit, train: Tensor, held_out: Tensor, table: FiniteGroup,
        picture: tuple[int, int] | None, columns: tuple[str, ...],
    ) -> None:  # fmt: skip
        found = aligned(result.found.candidates[result.found.best], result.scores, table)
        others = nearest(found, held_out, table)
        arrays = {"found": found.numpy(), "truth": train.numpy(), "held_out": others.numpy()}
        write_arrays(output / RECONSTRUCTIONS, arrays)
        facts = {"group": table.name, "training inputs": str(len(train)), "held out": str(len(held_out))}
        if columns:
            facts["columns"] = ", ".join(columns)
            records = {"record": np.arange(1, len(found) + 1), "correlation": result.scores.correlation.numpy()}
            records |= {name: found[:, place].numpy() for place, name in enumerate(columns)}
            write_text(output / RECORDS, escaped(pd.DataFrame(records)).to_csv(index=False))
        write_audit(output, f"Audit of {self.weights.name}", result, arrays, facts, picture)
        write_json(output / METRICS, result.to_dict())

    def _network(self, shape: tuple[int, ...]) -> tuple[nn.Module, FiniteGroup]:
        if self.model is None:
            return load_network(self.weights, self.group, shape)
        return load_module(self.model, self.weights, shape), group_of(self.group, shape)

    def _attack(self, network: nn.Module, x: Tensor) -> Attack:
        given: dict[str, Any] = {"restarts": self.restarts, "seed": self.seed}
        if self.part is None and self.steps is None:
            return default_attack(network.double(), x, **given)
        steps = 3000 if self.steps is None else self.steps
        return Attack(candidates=2 * len(x), least=0.1, steps=steps, part=self.part, **given)


def _as_classes(samples: Samples) -> Samples:
    """Labels -1 and 1 as class numbers 0 and 1, which two outputs read."""
    x, y = samples
    return x, (y > 0).to(torch.int64) if y.is_floating_point() else y
