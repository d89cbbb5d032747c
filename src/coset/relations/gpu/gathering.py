"""What the kernels read of a relation: tables as long as its edges, or as the rows."""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor


class Gathering(NamedTuple):
    """What kernels on a GPU read of a relation on one axis of a product; nothing is as long as the product's edges."""

    layout: Int[Tensor, "5 graphs+1"]  # Relation.layout
    graph_of_output: Int[Tensor, " outputs"]
    ptr: Int[Tensor, " targets+1"]  # compressed rows, as in Rows
    source: Int[Tensor, " edges"]
    edge: Int[Tensor, " edges"]
    graph_of_input: Int[Tensor, " inputs"]
    reversed_ptr: Int[Tensor, " sources+1"]  # and those of the transposed relation
    reversed_target: Int[Tensor, " edges"]
    reversed_edge: Int[Tensor, " edges"]
    ends: Int[Tensor, "2 edges"]  # Relation.index
    graph_of_edge: Int[Tensor, " edges"]

    @property
    def into_targets(self) -> tuple[Tensor, ...]:
        """Graph of every output row, and the entries that it receives from."""
        return self.graph_of_output, self.ptr, self.source, self.edge

    @property
    def into_sources(self) -> tuple[Tensor, ...]:
        """Graph of every input row, and the entries that it is sent along."""
        return self.graph_of_input, self.reversed_ptr, self.reversed_target, self.reversed_edge
