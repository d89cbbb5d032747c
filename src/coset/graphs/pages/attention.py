"""Attention of a subgraph network on graphs: small records, and the view that draws them.

In the copy of the graph rooted at s, node v looks at its neighbours v' with the *internal* weights of its softmax; at
itself in other copies, rooted at the neighbours s' of s, with the *external* weights. Both run along the same edge
list, so a weight is addressed by a copy (internal) or a node (external) and an edge:

    internal[s, e] with e = (v' -> v): how much (s, v) looks at (s, v');   sum over v' is 1 for every s, v
    external[v, e] with e = (s' -> s): how much (s, v) looks at (s', v);   sum over s' is 1 for every s, v

``attention.json`` in a run's folder is a list of ``to_dict()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from coset.graphs.pages.molecules import skeleton
from coset.graphs.pages.views import PAGE_VIEWS, SHOWN, View, last_split
from coset.reports import Section, Widget

if TYPE_CHECKING:
    from torch import nn

    from coset.graphs.data.graph_table import GraphTable

Array = Any  # numpy arrays, tensors on the CPU, or nested lists

LARGEST_SHOWN = 40  # atoms of a molecule
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
        positions: Where to draw the nodes, any unit, y upwards; for molecules
            :func:`coset.graphs.pages.molecules.skeleton`.
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
    names = list(symbols) if symbols is not None else [""] * len(place)
    if len(names) != len(place):
        raise ValueError(f"symbols has {len(names)} entries for {len(place)} positions")
    edges = np.asarray(edge_index, dtype=int).reshape(2, -1).T
    layers, looped = _layers(internal, external, len(place), len(edges))
    loops = np.repeat(np.arange(len(place))[:, None], 2, axis=1)
    lines = [[int(i), int(j), 1] for i, j in edges if i < j] if bonds is None else [[*map(int, bond)] for bond in bonds]
    return AttentionRecord(
        id=str(id), smiles=smiles, bonds=lines, layers=layers,
        atoms=[{"symbol": n, "x": round(float(x), 3), "y": round(float(y), 3)} for n, (x, y) in zip(names, place)],
        edges=(np.concatenate([edges, loops]) if looped else edges).tolist(),
        importance=[] if importance is None else [float(f"{v:.4g}") for v in np.asarray(importance, dtype=float)],
        importance_name=importance_name if importance is not None else "",
    )  # fmt: skip


def _layers(
    internal: Array | None, external: Array | None, nodes: int, edges: int
) -> tuple[list[dict[str, list[list[int]]]], bool]:
    """Weights a layer, per mille, and whether they have self-loops."""
    kinds = {"internal": internal, "external": external}
    packed = {kind: _packed(kind, value, nodes, edges) for kind, value in kinds.items() if value is not None}
    if len({value.shape for value in packed.values()}) > 1:
        shapes = " and ".join(str(list(value.shape)) for value in packed.values())
        raise ValueError(f"internal and external must have the same shape, got {shapes}")
    depth, _, width = next(iter(packed.values())).shape if packed else (0, 0, edges)
    return [{kind: value[layer].tolist() for kind, value in packed.items()} for layer in range(depth)], width > edges


def write_attention(run_dir: Path, records: Sequence[AttentionRecord]) -> Path:
    """Write ``attention.json`` into a run's folder, where its page looks for it."""
    return ATTENTION.write(run_dir, records)


def attention_records(model: nn.Module, table: GraphTable) -> list[AttentionRecord]:
    """Where the model looks in the first molecules of the last split that are small enough to draw; none if it has no
    attention, or the graphs are no molecules."""
    if not hasattr(model, "attention"):
        return []
    small = [i for i in last_split(table) if table.smiles[i] and 1 < table.graphs[i].num_nodes <= LARGEST_SHOWN]
    model.eval()
    return [_record_of(model, table, i) for i in small[:SHOWN]]


def _record_of(model: Any, table: GraphTable, i: int) -> AttentionRecord:
    weights = {kind: value.numpy() for kind, value in model.attention(table.graphs[i]).items()}
    return attention_record(
        id=table.ids[i], smiles=table.smiles[i], edge_index=table.graphs[i].edge_index.numpy(),
        internal=weights.get("internal"), external=weights.get("external"), **skeleton(table.smiles[i]),
    )  # fmt: skip


def _section(records: list[dict[str, Any]]) -> Section:
    text = Markup(
        "The network sees one copy of the molecule for each atom, with that atom marked as the <em>root</em>. Click an "
        "atom to make it the root. From every atom, the thickness of a half-bond says how much it looks that way, and "
        "the arc around it how much it looks at itself. Point at an atom, or choose it as the looking atom, for its "
        "numbers."
    )
    viewer = Widget(
        Markup('<div id="attention-viewer"></div>'), scripts=["coset.graphs.pages:attention.js"],
        styles=["coset.graphs.pages:run.css"],        data={"attention-data": records},
    )  # fmt: skip
    return Section("Attention", text, widget=viewer, anchor="attention")


ATTENTION = PAGE_VIEWS.register("attention")(
    View("attention.json", "attention record", AttentionRecord.from_dict, attention_records, _section)
)


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
