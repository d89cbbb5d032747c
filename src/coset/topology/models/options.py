"""HOMP and SMCN by name, with the lifting that each needs: what recipes are built from."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch_geometric.transforms import BaseTransform, Compose

from coset.topology.liftings import BallLift, CliqueLift, RingLift
from coset.topology.liftings.marking import MarkPairs
from coset.topology.models.homp import HOMP
from coset.topology.models.smcn import SMCN

Features = list[int] | int | None


class _ComplexOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)

    width: int = Field(64, ge=1, description="columns of the features")
    layers: int = Field(3, ge=1, le=64)
    lift: Literal["ring", "clique", "ball", "none"] = Field("ring", description="cells of rank 2; none for complexes")
    longest: int = Field(18, ge=3, description="atoms of the longest ring that becomes a cell")
    rings: Literal["simple", "induced"] = "simple"
    norm: Literal["batch", "layer", "none"] = "layer"
    readout: Literal["sum", "mean"] = "sum"
    dropout: float = Field(0.0, ge=0, lt=1)
    root_fraction: Literal[1] = Field(1, description="these models mark every cell")
    votes: Literal[1] = Field(1, description="predictions have no randomness to average over")

    def lifting(self) -> BaseTransform:
        """From a graph to a complex."""
        if self.lift == "ring":
            return RingLift(self.longest, self.rings)
        return {"clique": CliqueLift, "ball": BallLift}[self.lift]() if self.lift != "none" else Compose([])

    def transform(self) -> BaseTransform:
        """What the network needs to find on a graph."""
        return self.lifting()

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        """The network for given features and outputs."""
        raise NotImplementedError

    def _arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"name", "lift", "longest", "rings", "root_fraction", "votes"})


class HOMPOptions(_ComplexOptions):
    name: Literal["homp"] = "homp"

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        return HOMP(outputs, (node_features, edge_features, None), **self._arguments())


class SMCNOptions(_ComplexOptions):
    name: Literal["smcn"] = "smcn"
    ranks: tuple[Literal[0, 1, 2], Literal[0, 1, 2]] = Field(
        (0, 2), description="rank of the cells, of the marked cells"
    )
    before: int = Field(1, ge=0, description="HOMP layers before the bag")
    after: int = Field(0, ge=0, description="HOMP layers after the pool")
    marking: Literal["distance", "binary"] = "distance"
    terms: list[Literal["low", "inc", "high", "row", "column", "total"]] = Field(["low", "inc"], min_length=1)
    reduce: Literal["sum", "mean"] = "sum"
    use_bridge: bool = Field(True, description="features of cells between neighbours enter the messages")
    use_marked: bool = Field(True, description="features of the marked cell enter the bag")
    merge: Literal["concat", "sum"] = Field("concat", description="how a layer brings its terms together")
    fresh_marks: bool = Field(False, description="every layer adds marks from a table of its own")

    def transform(self) -> BaseTransform:
        return Compose([self.lifting(), MarkPairs(self.ranks)])

    def build(self, outputs: int, node_features: Features, edge_features: Features) -> nn.Module:
        return SMCN(outputs, (node_features, edge_features, None), **self._arguments())
