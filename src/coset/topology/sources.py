"""Data sets of complexes by name."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from coset.graphs.data import datasets
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.sources import GRAPH_DATA, GraphData, SplitGraphData
from coset.graphs.data.zinc import zinc12k
from coset.topology.targets import grid_surfaces, random_surfaces, ring_property


@GRAPH_DATA.add
class RingProperty(SplitGraphData):
    """A property of the ring complexes of the molecules of FreeSolv, ESOL or ZINC-12k, bare of atom types."""

    name: Literal["ring-property"]
    property: Literal["cross_diameter", "betti2"] = "cross_diameter"
    molecules: Literal["freesolv", "esol", "zinc12k"] = "zinc12k"
    longest: int = Field(18, ge=3, description="atoms of the longest cycle that counts as a ring")
    path: str | None = Field(None, description="file or folder of the molecules")

    def load(self, seed: int, progress: bool) -> GraphTable:
        if self.molecules == "zinc12k":
            table = zinc12k(self.path, progress=progress)
        elif self.molecules == "esol":
            table = datasets.esol(self.path, **self._how(seed, progress))
        else:
            table = datasets.freesolv(**self._how(seed, progress))
        return ring_property(table, self.property, self.longest, progress)


@GRAPH_DATA.add
class Surfaces(GraphData):
    """Closed surfaces, triangulated at random or of squares, with what they are."""

    not_smiles: ClassVar[str] = "which are no molecules in SMILES"

    name: Literal["surfaces"]
    family: Literal["random", "grids"] = Field("random", description="triangulated at random, or grids of squares")
    property: Literal["euler", "orientable"] = "euler"
    count: int = Field(600, ge=16, description="random surfaces to train on")
    sizes: tuple[int, int] = Field((20, 40), description="vertices (random) or sides (grids), least and most")
    test_sizes: tuple[int, int] = Field((41, 60), description="the same for the test")
    flips: int = Field(200, ge=0, description="edge flips of a random surface")
    meshes: bool = Field(False, description="test on CGAL's meshes, too (Debian's libcgal-demo)")
    data_seed: int | None = Field(None, ge=0, description="seed of the surfaces; the run's seed by default")

    @model_validator(mode="after")
    def _possible(self) -> "Surfaces":
        least = {"random": 15, "grids": 3}[self.family]
        for key, (low, high) in (("sizes", self.sizes), ("test_sizes", self.test_sizes)):
            if not least <= low <= high:
                raise ValueError(f"data.{key}=[{low}, {high}]: from at least {least} to at least as many")
        if self.family == "grids" and (self.property != "orientable" or self.meshes):
            raise ValueError("data.family=grids holds tori and Klein bottles: data.property=orientable, no meshes")
        return self

    def load(self, seed: int, progress: bool) -> GraphTable:
        seed = seed if self.data_seed is None else self.data_seed
        if self.family == "grids":
            return grid_surfaces(self.sizes, self.test_sizes, seed)
        return random_surfaces(
            self.property, self.count, self.sizes, self.test_sizes, self.flips, self.meshes, seed, progress
        )
