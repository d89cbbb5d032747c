"""The networks that benches of expressive power compare: registered models that a test bounds, and their variants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch_geometric.transforms import BaseTransform

from coset.core.errors import CosetError
from coset.core.registry import nearest
from coset.graphs.models.options import GRAPH_MODELS, GraphModel, Level


@dataclass(frozen=True)
class BenchNetwork:
    """A network on bare graphs.

    Attributes:
        model: Its options.
        bound: The refinement that tells apart all that it can; ``None`` if nothing bounds it.
        settings: Of the options.
    """

    model: type[GraphModel]
    bound: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def options(self, width: int, layers: int) -> GraphModel:
        """Its options at a size; what else has a width, has this one."""
        own = {name: width for name in ("channels",) if name in self.model.model_fields}
        return self.model.model_validate({**own, **self.settings, "width": width, "layers": layers})

    def build(self, outputs: int, width: int, layers: int, level: Level = "graph") -> nn.Module:
        """The untrained network: a row of ``outputs`` a graph, or a node."""
        return self.options(width, layers).network(outputs, None, None, level)

    def with_settings(self, **settings: Any) -> BenchNetwork:
        """The same with further settings of its options."""
        return replace(self, settings={**self.settings, **settings})

    def transform(self) -> BaseTransform:
        """What it needs to find on a graph."""
        return self.options(8, 1).transform()


def bench_networks() -> dict[str, BenchNetwork]:
    """All of them by name."""
    found: dict[str, BenchNetwork] = {}
    for model in GRAPH_MODELS.classes():
        assert issubclass(model, GraphModel)
        if model.bound is not None:
            (name, *_) = model.model_fields["name"].annotation.__args__  # type: ignore[union-attr]
            found[model.label or name] = BenchNetwork(model, model.bound)
        for name, variant in model.variants.items():
            found[name] = BenchNetwork(model, variant.bound, variant.settings)
    return found


def named_networks(names: str, known: Iterable[str], everything: Iterable[str] | None = None) -> list[str]:
    """Names of networks, comma-separated, or ``all``.

    Raises:
        CosetError: There is no such network; the message names the nearest and all others.
    """
    table = list(known)
    if names == "all":
        return list(table if everything is None else everything)
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in table:
            near = nearest(name, table)
            hint = f"; did you mean {near!r}? choose" if near else "; choose"
            raise CosetError(f"no network {name!r}{hint} from {', '.join(table)}, or all")
    return chosen
