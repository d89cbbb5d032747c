"""Models by name, and what each needs added to a graph: what recipes are built from."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn
from torch_geometric.transforms import BaseTransform, Compose

from coset.graphs.encodings.coarsening import COARSENINGS
from coset.graphs.models.csgnn import CSGNN
from coset.graphs.models.epnn import EPNN
from coset.graphs.models.gin import GIN
from coset.graphs.models.grit import GRIT
from coset.graphs.models.norms import NormName
from coset.graphs.models.subgraphormer import GNNSSWLPlus, Subgraphormer
from coset.graphs.transforms import Coarsen, Eigenspaces, ProductPositionalEncoding, ShortestPathDistances

Features = list[int] | int | None
Relations = list[Literal["uL", "vL", "vv", "uG", "vG"]]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)

    width: int = Field(96, ge=1, description="columns of the features")
    layers: int = Field(6, ge=1, le=64)
    residual: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        """The network for given features and outputs."""
        raise NotImplementedError

    def transform(self) -> BaseTransform:
        """What the network needs to find on a graph."""
        return Compose([])

    root_fraction: float = Field(1.0, gt=0, le=1, description="share of the nodes that are marked as roots")
    votes: int = Field(1, ge=1, description="draws of roots that a prediction is averaged over")


class _PairOptions(_Options):
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
        return self.model_dump(exclude={"name", "root_fraction", "votes", "one_axis"})


class SubgraphormerOptions(_PairOptions):
    name: Literal["subgraphormer"] = "subgraphormer"
    heads: int = Field(4, ge=1)
    attention: Literal["gat", "gatv2", "transformer"] = "gat"
    readout: Literal["sum", "mean"] = "sum"
    linear: bool = Field(False, description="single linear maps instead of two-layer perceptrons")

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        return Subgraphormer(outputs, node_features, edge_features, **self._arguments())


class GNNSSWLPlusOptions(_PairOptions):
    name: Literal["gnn-sswl-plus"] = "gnn-sswl-plus"

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        return GNNSSWLPlus(outputs, node_features, edge_features, **self._arguments())


class GranolaOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)

    depth: int = Field(2, ge=1, description="layers of the network that predicts the affine part")
    noise_channels: int | None = Field(None, ge=0, description="random features a node; the width by default")
    noise_scale: float = Field(1.0, ge=0, description="of the weights that the noise enters with, at the start")
    init: Literal["identity", "paper"] = "identity"


class GINOptions(_Options):
    name: Literal["gin"] = "gin"
    readout: Literal["sum", "mean"] = "sum"
    norm: NormName = Field("batch", description="normalisation after each layer")
    granola: GranolaOptions | None = Field(None, description="for norm=granola and its variants")
    inner_norm: bool | None = Field(None, description="batch norm inside the MLPs; by default with norm=batch only")
    head_norm: bool = Field(False, description="batch norm in the head")
    input_noise: int | None = Field(None, ge=1, description="random features a node, appended to its own")
    draws: int = Field(1, ge=1, description="passes with other noise that a prediction is the mean of")

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        if self.norm not in ("granola", "granola-no-rnf", "rnf-norm") and self.granola is not None:
            raise ValueError(f"granola: norm={self.norm} has no such options; set norm=granola")
        if self.norm not in ("granola", "rnf-norm") and not self.input_noise and self.draws > 1:
            raise ValueError(f"draws={self.draws}: norm={self.norm} draws no noise; leave it at 1")
        options = self.model_dump(exclude={"name", "root_fraction", "votes"})
        return GIN(outputs, node_features, edge_features, **options)


class CSGNNOptions(_Options):
    name: Literal["csgnn"] = "csgnn"
    root_fraction: Literal[1] = Field(1, description="choose bag=... instead")
    votes: Literal[1] = Field(1, description="predictions have no randomness to average over")
    bag: int | Literal["full"] = Field("full", description="number of node sets; full: a set a node")
    coarsening: Literal[
        "spectral", "merge", "random", "sample", "modularity", "singletons", "whole", "components", "rings", "balls",
        "edges", "pairs",
    ] = Field("spectral", description="how the sets are chosen")  # fmt: skip
    coarsening_seed: int = Field(0, ge=0, description="seed of the sets")
    dimensions: int = Field(2, ge=1, description="Laplacian eigenvectors of coarsening=spectral")
    radius: int = Field(1, ge=1, description="of coarsening=balls")
    marking: Literal["learned", "minimum", "size", "simple"] = "learned"
    max_distance: int = Field(5, ge=1, le=250, description="largest distance of the marking")
    nearest: int = Field(10, ge=1, description="distances that the learned marking adds up")
    start: Literal["scaled", "published"] = Field("scaled", description="marks begin small, or at N(0, 1)")
    updates: Literal["point", "full", "none"] = Field("point", description="symmetry-based updates")
    coupling: Literal["mlp", "relu", "identity"] = Field("mlp", description="map inside the point updates")
    crossing: Literal["bonds", "once"] = Field("bonds", description="edges between two sets: one a bond, or one")
    attention: Literal["gat", "gatv2", "transformer"] | None = Field(None, description="instead of sums along edges")
    heads: int = Field(4, ge=1)
    readout: Literal["sum", "mean"] = "sum"

    @field_validator("bag", mode="before")
    @classmethod
    def _number_or_full(cls, value: Any) -> Any:
        if value != "full" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError("a number of node sets, or full")
        return value

    def transform(self) -> BaseTransform:
        sized = COARSENINGS[self.coarsening].sized
        method = "singletons" if sized and self.bag == "full" else self.coarsening
        size = self.bag if isinstance(self.bag, int) else None
        options = {"seed": self.coarsening_seed, "dimensions": self.dimensions, "radius": self.radius}
        return Compose([ShortestPathDistances(self.max_distance), Coarsen(method, size, **options)])

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        way = COARSENINGS[self.coarsening]
        if isinstance(self.bag, int) and (self.bag < 1 or not way.sized):
            what = (
                "at least 1, or full" if way.sized else f"coarsening={self.coarsening} finds their number; set bag=full"
            )
            raise ValueError(f"bag={self.bag}: {what}")
        if self.updates == "full" and not (way.partition or (self.bag == "full" and way.sized)):
            raise ValueError(f"updates=full: coarsening={self.coarsening} is no partition; choose updates=point")
        sets = {"bag", "coarsening", "coarsening_seed", "dimensions", "radius"}
        options = self.model_dump(exclude={"name", "root_fraction", "votes"} | sets)
        return CSGNN(outputs, node_features, edge_features, **options)


class _SpectralOptions(_Options):
    matrix: Literal["adjacency", "laplacian", "normalized"] = "normalized"
    root_fraction: Literal[1] = Field(1, description="these models mark no roots")
    votes: Literal[1] = Field(1, description="predictions have no randomness to average over")

    def transform(self) -> BaseTransform:
        return Eigenspaces(self.matrix)

    def _arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"name", "matrix", "root_fraction", "votes"})


class EPNNOptions(_SpectralOptions):
    name: Literal["epnn"] = "epnn"
    readout: Literal["sum", "mean"] = "mean"
    norm: bool = Field(True, description="batch normalisation")

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        return EPNN(outputs, node_features, edge_features, **self._arguments())


class GRITOptions(_SpectralOptions):
    name: Literal["grit"] = "grit"
    width: int = Field(64, ge=1, description="columns of nodes and pairs")
    layers: int = Field(4, ge=1, le=64)
    residual: Literal[True] = Field(True, description="this model has no other form")
    heads: int = Field(8, ge=1)
    walk_steps: int = Field(16, ge=0, description="powers of the random walk that pairs carry")
    encoder: Literal["implicit", "product", "none"] = Field("implicit", description="of eigenspaces; none: plain GRIT")
    channels: int = Field(64, ge=1, description="columns of the encoder")
    readout: Literal["sum", "mean"] = "sum"
    attention_dropout: float = Field(0.2, ge=0, lt=1)

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        if self.walk_steps and self.matrix != "normalized":
            raise ValueError(f"matrix={self.matrix}: random walks need normalized; or set walk_steps=0")
        arguments = self._arguments()
        del arguments["residual"]
        return GRIT(outputs, node_features, edge_features, **arguments)
