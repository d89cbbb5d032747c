"""What is in an adapter, layer by layer: shapes, scales, norms, spectra. All numbers are invariant under GL(r)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from coset.weights.lora.data.adapters import LoraAdapter, LoraPair
from coset.weights.lora.data.finding import adapters_below
from coset.weights.lora.data.reading import CONFIG, FILES


@dataclass(frozen=True)
class LayerFacts:
    """One update.

    Attributes:
        norm: Frobenius norm of dW, scale included.
        effective_rank: exp of the entropy of the shares of sigma (Roy and Vetterli 2007): between 1 and the rank.
        singular_values: Of dW, descending.
    """

    name: str
    kind: str
    n: int
    m: int
    rank: int
    scale: float
    norm: float
    effective_rank: float
    singular_values: tuple[float, ...]


@dataclass(frozen=True)
class AdapterFacts:
    """An adapter at a glance."""

    name: str
    source_format: str
    base_model: str | None
    parameters: int
    dense_parameters: int
    norm: float
    layers: tuple[LayerFacts, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def inspect(adapter: LoraAdapter) -> AdapterFacts:
    """Facts of every layer and of the whole."""
    layers = tuple(_layer(name, pair) for name, pair in adapter.layers.items())
    dense = sum(layer.n * layer.m for layer in layers)
    return AdapterFacts(
        adapter.name, adapter.source_format, adapter.base_model, adapter.parameters(), dense, adapter.norm(), layers,
        adapter.notes,
    )  # fmt: skip


def _layer(name: str, pair: LoraPair) -> LayerFacts:
    values = pair.singular_values()
    n, m = pair.shape
    return LayerFacts(
        name, pair.kind, n, m, pair.rank, pair.scale, float(values.square().sum().sqrt()), effective_rank(values),
        tuple(values.tolist()),
    )  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """Adapters of a folder.

    Attributes:
        names: Paths below the folder; without the adapter that the folder itself is.
        apart: Whether the folder itself is none.
        notes: Links that are left out.
    """

    names: list[str]
    apart: bool
    notes: tuple[str, ...] = ()


def adapters_beside(path: Path, adapter: str | None) -> Beside | None:
    """What else is in the folder of an adapter, or all that is in a folder of adapters; None for a file.

    Args:
        path: A file or a folder.
        adapter: The one in it that is read.
    """
    if not path.is_dir():
        return None
    found = adapters_below(path)
    own = {path, path / adapter} if adapter else {path}
    names = [str(p.relative_to(path)) for p in found.paths if p not in own]
    itself = any((path / name).is_file() for name in (*FILES, CONFIG))
    return Beside(names, not itself, tuple(found.notes))


def effective_rank(values: torch.Tensor) -> float:
    """exp of the entropy of singular values divided by their sum; 0 for a zero matrix."""
    total = float(values.sum())
    if total <= 0:
        return 0.0
    return float(torch.special.entr(values / total).sum().exp())
