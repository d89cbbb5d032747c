"""Attention of a subgraph network on one graph, as a small record that a page can draw.

In the copy of the graph rooted at s, node v looks at its neighbours v' with the *internal* weights of its softmax; at
itself in other copies, rooted at the neighbours s' of s, with the *external* weights. Both run along the same edge
list, so a weight is addressed by a copy (internal) or a node (external) and an edge:

    internal[s, e] with e = (v' -> v): how much (s, v) looks at (s, v');   sum over v' is 1 for every s, v
    external[v, e] with e = (s' -> s): how much (s, v) looks at (s', v);   sum over s' is 1 for every s, v

Nothing here knows of HTML or of any model. ``attention.json`` in a run's folder is a list of ``to_dict()``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from coset.core.files import write_text

Array = Any  # numpy arrays, tensors on the CPU, or nested lists

SCALE = 1000  # weights are stored as integers per mille: three digits are more than an eye can see


@dataclass(frozen=True)
class AttentionRecord:
    """One graph, its drawing, and who looks where in every layer; build it with :func:`attention_record`.

    Attributes:
        id: Name, as in ``predictions.csv``.
        smiles: The molecule; empty if the graph is none.
        atoms: ``{"symbol", "x", "y"}`` a node.
        bonds: ``[i, j, order]`` of every line to draw, i < j.
        edges: ``[source, target]`` of every weight, self-loops included.
        layers: ``{"internal": [root][edge], "external": [node][edge]}`` in per mille; a kind that the layer lacks is
            absent.
        importance: One number a node, or empty.
        importance_name: What that number is, in a few words.
    """

    id: str
    smiles: str
    atoms: list[dict[str, Any]]
    bonds: list[list[int]]
    edges: list[list[int]]
    layers: list[dict[str, list[list[int]]]]
    importance: list[float]
    importance_name: str = ""

    def __post_init__(self) -> None:
        nodes = len(self.atoms)
        for i, j in [(bond[0], bond[1]) for bond in self.bonds] + [(edge[0], edge[1]) for edge in self.edges]:
            if not (0 <= i < nodes and 0 <= j < nodes):
                raise ValueError(f"edge ({i}, {j}) leaves the {nodes} atoms")
        for depth, layer in enumerate(self.layers):
            for kind, rows in layer.items():
                if kind not in ("internal", "external"):
                    raise ValueError(f"layer {depth} has {kind!r}; only internal and external are known")
                if len(rows) != nodes or any(len(row) != len(self.edges) for row in rows):
                    raise ValueError(f"{kind} weights of layer {depth} must be {nodes} rows of {len(self.edges)}")
        if self.importance and len(self.importance) != nodes:
            raise ValueError(f"importance has {len(self.importance)} entries for {nodes} atoms")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> AttentionRecord:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: The value is no record.
        """
        atoms = [{"symbol": str(a["symbol"]), "x": float(a["x"]), "y": float(a["y"])} for a in value["atoms"]]
        return cls(
            id=str(value["id"]),
            smiles=str(value.get("smiles", "")),
            atoms=atoms,
            bonds=[[int(entry) for entry in bond] for bond in value["bonds"]],
            edges=[[int(entry) for entry in edge] for edge in value["edges"]],
            layers=[dict(layer) for layer in value["layers"]],
            importance=[float(entry) for entry in value.get("importance") or []],
            importance_name=str(value.get("importance_name", "")),
        )


def attention_record(
    *,
    id: str,
    edge_index: Int[Array, "2 edges"],
    internal: Float[Array, "layers roots edges_and_loops"] | None,
    external: Float[Array, "layers nodes edges_and_loops"] | None,
    positions: Float[Array, "nodes 2"],
    symbols: Sequence[str] | None = None,
    bonds: Sequence[Sequence[int]] | None = None,
    smiles: str = "",
    importance: Float[Array, " nodes"] | None = None,
    importance_name: str = "importance",
) -> AttentionRecord:
    """Pack plain arrays into a record.

    Every node is a root here: a model that samples roots in training is shown with all of them.

    Args:
        id: Name of the graph.
        edge_index: Directed edges (source, target), as in PyG; without self-loops.
        internal: Softmax weights inside copies, averaged over heads; the last axis is ``edge_index``'s, followed by
            the n self-loops in node order if the model has them. ``None`` if the model has no such attention.
        external: The same across copies: row v, column (s' -> s).
        positions: Where to draw the nodes, any unit, y upwards; :func:`coset.reports.skeleton` for molecules.
        symbols: Label a node; empty by default.
        bonds: Lines ``(i, j, order)``; one of order 1 an undirected edge by default.
        smiles: The molecule, if it is one.
        importance: One number a node to tint it by, e.g. the norm of the prediction's gradient.
        importance_name: What ``importance`` is, for the legend.

    Raises:
        ValueError: Sizes disagree, or weights are not finite; the message names the argument.
    """
    place = np.asarray(positions, dtype=float)
    if place.ndim != 2 or place.shape[1] != 2:
        raise ValueError(f"positions has shape {list(place.shape)}; expected [nodes, 2]")
    nodes = len(place)
    edges = np.asarray(edge_index, dtype=int).reshape(2, -1).T
    loops = np.repeat(np.arange(nodes)[:, None], 2, axis=1)
    names = list(symbols) if symbols is not None else [""] * nodes
    if len(names) != nodes:
        raise ValueError(f"symbols has {len(names)} entries for {nodes} positions")
    kinds = {"internal": internal, "external": external}
    packed = {kind: _packed(kind, value, nodes, len(edges)) for kind, value in kinds.items() if value is not None}
    if len({value.shape for value in packed.values()}) > 1:
        shapes = " and ".join(str(list(value.shape)) for value in packed.values())
        raise ValueError(f"internal and external must have the same shape, got {shapes}")
    width = next(iter(packed.values())).shape[2] if packed else len(edges)
    depth = max((len(value) for value in packed.values()), default=0)
    lines = [[int(i), int(j), 1] for i, j in edges if i < j] if bonds is None else [[*map(int, bond)] for bond in bonds]
    return AttentionRecord(
        id=str(id),
        smiles=smiles,
        atoms=[{"symbol": n, "x": round(float(x), 3), "y": round(float(y), 3)} for n, (x, y) in zip(names, place)],
        bonds=lines,
        edges=(np.concatenate([edges, loops]) if width > len(edges) else edges).tolist(),
        layers=[{kind: value[layer].tolist() for kind, value in packed.items()} for layer in range(depth)],
        importance=[] if importance is None else [float(f"{v:.4g}") for v in np.asarray(importance, dtype=float)],
        importance_name=importance_name if importance is not None else "",
    )


def write_attention(run_dir: Path, records: Sequence[AttentionRecord]) -> Path:
    """Write ``attention.json`` into a run's folder, where :func:`coset.reports.write_report` looks for it."""
    path = Path(run_dir) / "attention.json"
    write_text(path, json.dumps([record.to_dict() for record in records], separators=(",", ":")) + "\n")
    return path


def _packed(kind: str, value: Array, nodes: int, edges: int) -> Int[np.ndarray, "layers rows columns"]:
    """Weights as integers per mille, sizes checked."""
    weights = np.asarray(value, dtype=float)
    if weights.ndim != 3 or weights.shape[1] != nodes or weights.shape[2] not in (edges, edges + nodes):
        raise ValueError(
            f"{kind} has shape {list(weights.shape)}; expected [layers, {nodes}, {edges} or with loops {edges + nodes}]"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{kind} holds weights that are negative or not finite")
    return np.rint(weights * SCALE).astype(int)
