"""What recipes may say of networks on complexes, with the lifting from graphs that they need."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator
from torch import nn
from torch_geometric.transforms import BaseTransform, Compose

from coset.core.errors import CosetError
from coset.graphs.data.graph_table import Level
from coset.graphs.models.options import OF_RUNS, Features, GraphModel
from coset.nn.norms import known_row_norm
from coset.topology.liftings import LIFTINGS, LiftingOptions


class ComplexModel(GraphModel):
    """Options that networks on complexes share.

    Attributes:
        makes: The network: number of outputs, features of vertices, edges and faces, and these options by name.
    """

    makes: ClassVar[type[nn.Module]]
    levels: ClassVar[tuple[Level, ...]] = ("graph", "cell0", "cell1", "cell2")
    reads_faces: ClassVar[bool] = True
    whole: ClassVar[str] = "it reads the complex as a whole"

    width: int = Field(64, ge=1, description="columns of the features")
    layers: int = Field(3, ge=1, le=64)
    lift: str = Field("ring", description="cells of rank 2; none for data that are complexes")
    longest: int = Field(18, ge=3, description="atoms of the longest ring that becomes a cell")
    rings: Literal["simple", "induced"] = "simple"
    norm: Annotated[str, AfterValidator(known_row_norm)] = "layer"
    readout: Literal["sum", "mean"] = "sum"
    dropout: float = Field(0.0, ge=0, lt=1)
    root_fraction: Literal[1] = Field(1, description="these models mark every cell")
    votes: Literal[1] = Field(1, description="predictions have no randomness to average over")

    @field_validator("lift")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            LIFTINGS[value]
        except CosetError as error:
            raise ValueError(str(error)) from error
        return value

    def build(
        self,
        outputs: int,
        node_features: Features,
        edge_features: Features,
        level: Level = "graph",
        face_features: Features = None,
    ) -> nn.Module:
        """The network; of a level ``cell0``, ``cell1`` or ``cell2`` its rows are cells."""
        return self.makes(outputs, (node_features, edge_features, face_features), **self._arguments(level))

    def lifting(self) -> BaseTransform:
        """From a graph to a complex."""
        if self.lift == "none":
            return Compose([])
        return LIFTINGS[self.lift].of(LiftingOptions(self.longest, self.rings))

    def transform(self) -> BaseTransform:
        """What the network needs to find on a graph."""
        return self.lifting()

    def _arguments(self, level: Level = "graph") -> dict[str, Any]:
        options = self.model_dump(exclude=OF_RUNS | {"lift", "longest", "rings"})
        return options if level == "graph" else {**options, "rank": int(level[-1])}
