"""One registry of normalisations for all networks: a norm is added once, and whoever can feed it can name it.

What a norm reads decides who can use it: the rows alone (every network), also which graph a row belongs to, or also the
edges (networks whose layers run on the nodes of graphs: :mod:`coset.graphs.models.norms`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from coset.core.errors import CosetError
from coset.core.registry import Registry

Reads = Literal["rows", "graphs", "edges"]
NORMS: Registry[Norm] = Registry("norm")


@dataclass(frozen=True)
class Norm:
    """A normalisation.

    Attributes:
        build: From the number of channels, and for those that read edges their own options, to the module.
        reads: What it is called with: ``norm(x)``, ``norm(x, batch)``, or features with relation, edges and noise.
        over_rows: Whether it takes statistics over all rows: a batch for training then needs at least two.
    """

    build: Callable[..., nn.Module]
    reads: Reads = "rows"
    over_rows: bool = False


def register_norm(name: str, build: Callable[..., nn.Module], reads: Reads = "rows", over_rows: bool = False) -> None:
    """Add a norm by name."""
    NORMS.register(name)(Norm(build, reads, over_rows))


register_norm("batch", nn.BatchNorm1d, over_rows=True)
register_norm("layer", nn.LayerNorm)
register_norm("identity", lambda channels: nn.Identity())
register_norm("none", lambda channels: nn.Identity())


def row_norm(name: str) -> Callable[[int], nn.Module]:
    """A norm that reads rows alone, by name: channels -> module.

    Raises:
        ValueError: There is none of this name that needs no more.
    """
    known = [each for each, norm in NORMS.items() if norm.reads == "rows"]
    if name not in known:
        raise ValueError(f"norm={name!r}: choose {', '.join(known[:-1])} or {known[-1]}")
    return NORMS[name].build


def known_norm(name: str) -> str:
    """The name, if it is one of a norm: what options validate.

    Raises:
        ValueError: It is not.
    """
    try:
        NORMS[name]
    except CosetError as error:
        raise ValueError(str(error)) from error
    return name


def known_row_norm(name: str) -> str:
    """The name, if it is one of a norm that reads rows alone.

    Raises:
        ValueError: It is not.
    """
    row_norm(name)
    return name
