"""What every kind of recipe can do: run into a folder, certify its symmetry, tell its result, write its page."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field

from coset.core.errors import CosetError

if TYPE_CHECKING:  # listing recipes should not import PyTorch
    from coset.symmetry import EquivarianceReport


class Options(BaseModel):
    """Options that refuse what they do not know."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class Recipe(Options, ABC):
    """A whole run, settled and checked. A kind is one subclass, listed in ``coset.runs.recipes.KINDS``."""

    kind: str
    name: str
    description: str = ""
    seed: int = Field(0, ge=0, lt=2**32)

    def to_yaml(self) -> str:
        """Everything settled: what ``recipe.yaml`` of a run holds."""
        return OmegaConf.to_yaml(OmegaConf.create(self.model_dump(mode="json")))

    @abstractmethod
    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """Do the work and fill the run's folder, ``metrics.json`` last; returns the metrics.

        ``recipe.yaml`` is written by :func:`coset.runs.folder.begin` once the inputs are known to be good.

        Raises:
            CosetError: The data or the recipe does not allow it.
        """

    @abstractmethod
    def report(self, folder: Path) -> Path:
        """Write ``report.html`` of a finished run; returns its path."""

    @abstractmethod
    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """The result as a small table, to print: names of the columns, and rows."""

    def verify(self, folder: Path | None = None, progress: bool = False) -> "list[EquivarianceReport]":
        """Measure the symmetry that the model claims: the trained one of a run, or an untrained one.

        Raises:
            CosetError: The recipe has no model that claims one.
        """
        raise CosetError(f"{self.name} makes no claim of symmetry to verify")
