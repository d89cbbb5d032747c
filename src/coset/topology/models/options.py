"""What recipes may say of networks on complexes, with the lifting from graphs that they need."""

from typing import Any, Literal

from pydantic import Field
from torch_geometric.transforms import BaseTransform, Compose

from coset.graphs.models.options import GraphModel
from coset.topology.liftings import BallLift, CliqueLift, RingLift


class ComplexModel(GraphModel):
    """Options that networks on complexes share."""

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

    def _arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"name", "lift", "longest", "rings", "root_fraction", "votes"})
