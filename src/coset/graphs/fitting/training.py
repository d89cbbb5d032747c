"""What a recipe may say about training on graphs."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from coset.runs.training import TrainingOptions


class GraphTraining(TrainingOptions):
    """How to train on graphs."""

    neighbours: list[Annotated[int, Field(ge=1)]] = Field(
        [],
        description="one large graph by neighbourhoods of batch_size nodes: how many neighbours are drawn at each hop, "
        "a number a layer, e.g. [10,10]; whole graphs without",
    )

    @field_validator("neighbours", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [int(part) if part.strip().isdigit() else part for part in value.split(",")]
        return [value] if isinstance(value, int) else value
