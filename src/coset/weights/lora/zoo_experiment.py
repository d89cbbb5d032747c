"""Recipes of kind ``lora-zoo``: make a collection of adapters by finetuning many, here, on processes or on Ray."""

import csv
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from coset.core.errors import CosetError
from coset.core.files import write_json
from coset.core.outside import read_tree
from coset.runs.folder import RunFolder
from coset.runs.launch.jobs import Job, run_jobs
from coset.runs.recipe import Recipe
from coset.runs.run import Run
from coset.runs.terminal import bars
from coset.weights.lora.finetuning.sources import ADAPTER_SOURCES, BASE, AdapterSource, one_thread
from coset.weights.lora.labels import TABLE

ADAPTERS = "adapters"
"""Folder of a collection for its adapters, one folder each."""
LABELS = "labels.json"
"""Written last into the folder of an adapter: one that has it is finished."""


@dataclass(frozen=True)
class Workers:
    """Who makes the adapters of a collection. It does not depend on them; measured seconds do.

    Attributes:
        engine: ``local`` (with one worker in this process, else a process a worker) or ``ray``.
        number: Finetunes at a time, on one thread each.
        retries: How often a worker is started again that dies.
    """

    engine: str = "local"
    number: int = 1
    retries: int = 2


class LoraZooRecipe(Recipe):
    """Finetune many adapters and label them with what they were made of and how good they are.

    Adapters that a stopped run has finished are kept; more may be asked for later.
    """

    leaves: ClassVar[tuple[str, ...]] = (ADAPTERS, BASE, TABLE)
    may_change: ClassVar[frozenset[str]] = frozenset({"adapters"})

    kind: Literal["lora-zoo"] = "lora-zoo"
    source: Annotated[AdapterSource, ADAPTER_SOURCES.choice]
    adapters: int = Field(200, ge=1)

    def prepare(self, run: Run) -> Workers:
        """This process alone; :meth:`run` takes others as ``prepared``."""
        return Workers()

    def work(self, run: Run, prepared: Workers) -> dict[str, Any]:
        """Make what is missing of the collection.

        Raises:
            CosetError: The source lacks something, or adapters could not be made.
        """
        folder = run.folder.path
        places = [folder / ADAPTERS / f"{number:05d}" for number in range(self.adapters)]
        with one_thread():
            # What a source trains before all adapters is trained now, once.
            base = run.part("base", lambda: self.source.open(folder, self.seed).base)
            missing = [number for number, place in enumerate(places) if not (place / LABELS).is_file()]
            run.at(f"{len(places) - len(missing)} of {len(places)} adapters")
            with _counted(places, len(missing), run.quiet):
                if prepared.engine == "local" and prepared.number == 1:
                    make_share(self.source, str(folder), self.seed, missing)
                else:
                    self._share_out(folder, missing, prepared)
        return self._collect(run.folder, places) | {"base": base}

    def _share_out(self, folder: Path, missing: Sequence[int], workers: Workers) -> None:
        """A worker a share: opening a source takes seconds, which every worker spends once."""
        together = self.source.together
        shares: list[list[int]] = [[] for _ in range(workers.number)]
        for number in missing:
            shares[number // together % workers.number].append(number)
        arguments = (self.source, str(folder.absolute()), self.seed)
        jobs = [Job(f"share {i}", make_share, (*arguments, share)) for i, share in enumerate(shares) if share]
        failed = [o for o in run_jobs(jobs, workers.engine, workers.number, workers.retries, threads=1) if o.error]
        if failed:
            raise CosetError(
                f"{len(failed)} of {len(jobs)} workers failed ({failed[0].error}); finished adapters are kept in "
                f"{folder}: run it again to go on"
            )

    def _collect(self, folder: RunFolder, places: Sequence[Path]) -> dict[str, Any]:
        rows = [{"id": p.name, **read_tree(p / LABELS, dict[str, Any])} for p in places]
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        folder.write_text(TABLE, table.getvalue())
        frame = pd.DataFrame(rows)
        score = "accuracy" if "accuracy" in frame else "alignment"
        deviation = float(frame[score].std()) if len(rows) > 1 else None
        return {
            "adapters": len(rows), "score": score,
            score: {k: float(getattr(frame[score], k)()) for k in ("mean", "min", "max")} | {"std": deviation},
            "mean": {c: float(v) for c, v in frame.select_dtypes("number").mean().items()},
        }  # fmt: skip

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.weights.lora.pages import write_zoo_page

        return write_zoo_page(self, folder, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """How many were made, and how good they are."""
        a = metrics[metrics["score"]]
        return ["adapters", metrics["score"], "deviation", "from", "to"], [
            [str(metrics["adapters"]), *("–" if a[k] is None else f"{a[k]:.3f}" for k in ("mean", "std", "min", "max"))]
        ]


def make_share(source: AdapterSource, folder: str, seed: int, numbers: Sequence[int]) -> None:
    """Make these adapters of a collection, those that are not there yet."""
    places = {number: Path(folder) / ADAPTERS / f"{number:05d}" for number in numbers}
    missing = [number for number in numbers if not (places[number] / LABELS).is_file()]
    if missing:
        maker = source.open(Path(folder), seed)
        for number in missing:
            places[number].mkdir(parents=True, exist_ok=True)
            write_json(places[number] / LABELS, maker.make(number, places[number]))


@contextmanager
def _counted(places: Sequence[Path], total: int, quiet: bool) -> Iterator[None]:
    """A bar that counts finished adapters in the folder, whoever makes them."""
    stop, before = threading.Event(), len(places) - total

    def watch() -> None:
        while not stop.wait(1.0):
            bar.update(shown, completed=sum((place / LABELS).is_file() for place in places) - before)

    with bars(quiet) as bar:
        shown = bar.add_task("finetuning", total=total)
        thread = threading.Thread(target=watch, daemon=True)
        if not quiet:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if not quiet:
                thread.join()
