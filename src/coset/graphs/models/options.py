"""Graph networks by name: what a recipe may say of one, what it needs added to a graph, and what is known about it.

A model is added by a class of options beside its network::

    @GRAPH_MODELS.add
    class GatedGCNOptions(GraphModel):
        name: Literal["gatedgcn"] = "gatedgcn"

        def build(self, outputs, node_features, edge_features):
            return GatedGCN(outputs, node_features, edge_features, width=self.width, layers=self.layers)

in a module of this package, or of a distribution with an entry point (:mod:`coset.core.domains`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, create_model, field_validator
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.transforms import BaseTransform, Compose

from coset.core.choices import OptionsRegistry
from coset.core.options import Options
from coset.graphs.data.graph_table import Level, plural
from coset.graphs.transforms import Eigenspaces, ProductPositionalEncoding, ShortestPathDistances

Features = list[int] | int | None
"""Columns: sizes of categories, a number of real columns, or none."""
Relations = list[Literal["uL", "vL", "vv", "uG", "vG"]]
GRAPH_MODELS = OptionsRegistry("graph model")


class Variant(NamedTuple):
    """Settings of a model that make a network of their own in benches.

    Attributes:
        settings: That differ from the defaults.
        bound: The test that bounds it, as of a model.
    """

    settings: dict[str, Any]
    bound: str | None


OF_RUNS = {"name", "from", "root_fraction", "votes"}
"""Options of a model that say nothing of how its network is built."""

if TYPE_CHECKING:
    _Start = Options
else:
    _Start = create_model(  # "from" is no name that a class could give to an attribute
        "_Start",
        __base__=Options,
        **{"from": (str | None, Field(None, description="a trained run, or one that was exported, to start from"))},
    )


class GraphModel(_Start):
    """Options that all graph networks have, and what is known of a network before it is built.

    Attributes:
        bound: The test of ``coset wl`` that tells apart all that the network can (with these options); ``None`` if
            there is none.
        label: What it is called in benches, if not by its name.
        variants: Further networks of it that benches know, by name.
        marks_roots: Whether it runs on copies of the graph, one for each root, of which some can be left out.
        levels: Of what its outputs can be rows: of graphs, of nodes, of edges, of links (pairs that may be joined).
        whole: Why it cannot learn from neighbourhoods of nodes, as in "it ..."; empty if it can.
        reads_faces: Whether it has use for features of cells of rank 2.
        squares: Whether it has ``width`` numbers for every pair of nodes of a graph.
    """

    bound: ClassVar[str | None] = None
    label: ClassVar[str] = ""
    variants: ClassVar[dict[str, Variant]] = {}
    marks_roots: ClassVar[bool] = False
    levels: ClassVar[tuple[Level, ...]] = ("graph",)
    whole: ClassVar[str] = "it reads the graph as a whole"
    squares: ClassVar[bool] = False
    reads_faces: ClassVar[bool] = False

    name: str
    width: int = Field(96, ge=1, description="columns of the features")
    layers: int = Field(6, ge=1, le=64)
    dropout: float = Field(0.0, ge=0, lt=1)
    root_fraction: float = Field(1.0, gt=0, le=1, description="share of the nodes that are marked as roots")
    votes: int = Field(1, ge=1, description="draws of roots that a prediction is averaged over")

    @field_validator("from")
    @classmethod
    def _from_anywhere(cls, value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    @property
    def starts_from(self) -> Path | None:
        """The folder of ``model.from``."""
        value = getattr(self, "from")
        return None if value is None else Path(value)

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        """The network for given features and outputs: PyG batch -> ``[graphs, outputs]``.

        Those with further :attr:`levels` take one as ``level``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build")

    def network(
        self,
        outputs: int,
        node_features: Features,
        edge_features: Features,
        level: Level = "graph",
        face_features: Features = None,
    ) -> nn.Module:
        """The network with outputs of a level: PyG batch -> ``[rows, outputs]``; of edges and links the rows are those
        of ``edge_label_index``.

        Raises:
            ValueError: It has no such outputs.
        """
        if level not in self.levels:
            outputs_of = ", ".join(f"{plural(own)}" for own in self.levels)
            raise ValueError(f"it has outputs of {outputs_of}, none of {plural(level)}")
        if level in ("edge", "link") and self.root_fraction < 1:
            raise ValueError(f"root_fraction={self.root_fraction}: pairs of {level}s need all roots; leave it at 1")
        build: Callable[..., nn.Module] = self.build
        at: dict[str, Any] = {} if level == "graph" else {"level": level}
        if face_features is not None:
            if not self.reads_faces:
                raise ValueError("it reads no features of faces")
            at["face_features"] = face_features
        return build(outputs, node_features, edge_features, **at)

    def why_whole(self) -> str:
        """:attr:`whole`, with these options."""
        return self.whole

    def transform(self) -> BaseTransform:
        """What the network needs to find on a graph."""
        return Compose([])

    def settled(self, network: nn.Module, batch: Batch) -> Batch:
        """The batch with all randomness of a pass drawn once, so that the symmetry of the network can be measured."""
        return batch

    def redrawn(self, network: nn.Module, draws: int | None, seed: int | None) -> bool:
        """Let predictions be a mean over other draws of the network's own noise; whether it has any."""
        return False


def what_models_do() -> dict[str, dict[str, bool]]:
    """By name of a model what it can predict for, and whether it can learn one large graph by neighbourhoods."""
    found = {}
    for options in {options for _, options in GRAPH_MODELS.items()}:
        model = options()
        assert isinstance(model, GraphModel)
        can = {"graphs": "graph", "nodes": "node", "edges, links": "link", "cells of a rank": "cell1"}
        found[model.name] = {what: level in model.levels for what, level in can.items()}
        found[model.name]["by neighbourhoods"] = not model.why_whole()
    return dict(sorted(found.items()))


class PairModel(GraphModel):
    """Options of networks on pairs (root, node)."""

    marks_roots: ClassVar[bool] = True
    whole: ClassVar[str] = "it has features of every pair of nodes"
    squares: ClassVar[bool] = True

    residual: bool = False
    max_distance: int = Field(5, ge=1, le=250, description="largest distance of the marking")
    marking: Literal["distance", "root", "none"] = "distance"
    positional_encoding: int = Field(0, ge=0, description="product Laplacian eigenvectors appended to the input")
    one_axis: bool = Field(True, description="those among them that vary along one axis only")
    scale_encoding: bool = Field(False, description="product eigenvectors at the scale of the marks")
    flip_signs: bool = Field(False, description="signs of eigenvectors drawn anew at every pass in training")
    relations: Relations = ["uL", "vL", "vv"]

    def transform(self) -> BaseTransform:
        steps: list[Any] = [ShortestPathDistances(self.max_distance)]
        if self.positional_encoding:
            steps.append(ProductPositionalEncoding(self.positional_encoding, one_axis=self.one_axis))
        return Compose(steps)

    def _arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude=OF_RUNS | {"one_axis"})


class SpectralModel(GraphModel):
    """Options of networks on eigenspaces."""

    whole: ClassVar[str] = "it reads the eigenvectors of the whole graph"
    squares: ClassVar[bool] = True

    residual: bool = False
    matrix: Literal["adjacency", "laplacian", "normalized"] = "normalized"
    root_fraction: Literal[1] = Field(1, description="these models mark no roots")
    votes: Literal[1] = Field(1, description="predictions have no randomness to average over")

    def transform(self) -> BaseTransform:
        return Eigenspaces(self.matrix)

    def _arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude=OF_RUNS | {"matrix"})
