"""What every kind of recipe gives to the template of a run: its work, its certificate, its page, its table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from omegaconf import OmegaConf
from pydantic import Field, ValidationError, field_validator

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.options import Options
from coset.runs.folder import RunFolder

if TYPE_CHECKING:  # listing recipes should not import PyTorch
    from coset.runs.run import Run
    from coset.symmetry import EquivarianceReport


class Recipe(Options, ABC):
    """A whole run, settled and checked. A kind is one subclass; a domain names it in its ``kinds``.

    What a kind can do is declared, not asked of its name:

    Attributes:
        leaves: Files and folders that its runs leave besides those of all kinds.
        may_change: Dotted keys that may differ when a run goes on, e.g. ``training.epochs``.
        counts_epochs: Whether it tells each epoch's validation, so that a sweep can stop what is worse than the rest:
            it writes ``history.csv`` after each, with columns ``epoch`` (from 0) and ``val_<monitor>``, then something
            to go on from, and calls ``run.on_epoch`` with the row.
        shares_processes: Whether several processes can train its one model.
        devices: What it can train on; ``auto`` is a GPU where it can and there is one, else the CPU.
    """

    leaves: ClassVar[tuple[str, ...]] = ()
    may_change: ClassVar[frozenset[str]] = frozenset()
    counts_epochs: ClassVar[bool] = False
    shares_processes: ClassVar[bool] = False
    devices: ClassVar[tuple[str, ...]] = ("auto", "cpu")

    kind: str
    name: str
    description: str = ""
    seed: int = Field(0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="what to train on")
    threads: int = Field(
        1, ge=1, description="of PyTorch's own operations; with more, results depend on how many (our kernels use all)"
    )

    @field_validator("device")
    @classmethod
    def _trains_there(cls, value: str) -> str:
        if value not in cls.devices:
            raise ValueError("runs of this kind train on the CPU; leave it at auto")
        return value

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Folders and files may be given as text to all kinds."""
        super().__pydantic_init_subclass__(**options)
        for name in ("folder", "verify", "predict"):
            if name in cls.__dict__:
                setattr(cls, name, takes_paths(cls.__dict__[name]))

    def to_yaml(self) -> str:
        """Everything settled: what ``recipe.yaml`` of a run holds."""
        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))

    @takes_paths
    def folder(self, path: Path) -> RunFolder:
        """A folder as runs of this kind leave it."""
        return RunFolder(path, self.leaves)

    @abstractmethod
    def prepare(self, run: Run) -> Any:
        """Read the inputs and build what is trained: all mistakes that can show before work begins show here.

        Raises:
            CosetError: The data or the recipe does not allow it.
        """

    def identity(self, prepared: Any) -> str | None:
        """A hash of what :meth:`prepare` has read, by which a run knows its data again; ``None`` where the recipe and
        its seed say all."""
        return None

    @property
    def files(self) -> Sequence[Path]:
        """Files and folders that :meth:`prepare` reads, where the recipe names them: a finished run that is given again
        reads its data again only if one of them has changed since."""
        return ()

    @abstractmethod
    def work(self, run: Run, prepared: Any) -> dict[str, Any]:
        """Fit, measure, and leave the run's own files; returns the metrics that are this kind's own.

        Work that takes long goes through :meth:`coset.runs.run.Run.part`, or leaves ``last.ckpt`` and reads it again.

        Raises:
            CosetError: Training diverged, or there is nothing to measure.
        """

    @abstractmethod
    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        """Write ``report.html``; returns its path."""

    @abstractmethod
    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """The result as a small table, to print: names of the columns, and rows."""

    def remarks(self, metrics: dict[str, Any]) -> Sequence[str]:
        """Lines to print below the table."""
        return ()

    def completed(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe of this kind that a checkpoint carries, with the defaults of options that have come since."""
        try:
            return type(self).model_validate(stored).model_dump(mode="json")
        except ValidationError:
            return dict(stored)

    @takes_paths
    def run(self, folder: Path, **options: Any) -> dict[str, Any]:
        """Run this recipe into a folder, or go on with the run there: see :func:`coset.runs.run.execute`."""
        from coset.runs.run import execute

        return execute(self, folder, **options)

    @takes_paths
    def report(self, folder: Path) -> Path:
        """Write ``report.html`` of a finished run again; returns its path.

        Raises:
            CosetError: The folder holds no finished run.
        """
        found = self.folder(folder)
        return self.page(found, found.metrics())

    def verify(self, folder: Path | None = None, progress: bool = False) -> Sequence[EquivarianceReport]:
        """Measure the symmetry that the model claims: the trained one of a run, or an untrained one.

        Raises:
            CosetError: The recipe has no model that claims one.
        """
        raise CosetError(f"{self.name} makes no claim of symmetry to verify")

    def predict(
        self, folder: RunFolder, data: Path, output: Path, *, quiet: bool = False, **options: Any
    ) -> tuple[int, Sequence[str]]:
        """Write predictions of a finished run for new data; returns how many, and notes.

        Raises:
            CosetError: Runs of this kind predict nothing, or the data do not fit.
        """
        raise CosetError(f"{folder} holds a run of kind {self.kind}, which has no predictions for new data")

    @property
    def monitor(self) -> str | None:
        """The metric of validation by which the best epoch is chosen."""
        return getattr(getattr(self, "training", None), "monitor", None)

    @property
    def most_epochs(self) -> int:
        """Epochs it is trained for at most, of kinds that count them."""
        return int(self.training.epochs)  # type: ignore[attr-defined]

    @property
    def judged_by(self) -> str:
        """Dotted place in the metrics of the number that a run is judged by; ``test`` for all numbers of the test."""
        return f"test.{self.monitor}" if self.monitor else "test"

    @property
    def reads(self) -> str | None:
        """What :meth:`prepare` depends on: runs of one kind that agree in it may share what it returned, which then
        none of them changes. ``None``: each prepares for itself."""
        return None
