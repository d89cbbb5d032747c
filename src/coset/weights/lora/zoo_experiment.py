"""Recipes of kind ``lora-zoo``: make a collection of adapters by finetuning many, here, on processes or on Ray."""

import csv
import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import Progress

from coset.core.errors import CosetError
from coset.core.files import make_folder, replacing, write_json, write_text
from coset.runs.launch.jobs import Job, run_jobs
from coset.runs.recipe import Options, Recipe
from coset.weights.lora.finetuning.sources import DiffusionSource, DigitsSource, MiniLMSource, SmilesSource

LABELS = "labels.json"
"""Written last into the folder of an adapter: one that has it is finished."""


class LoraZooRecipe(Recipe):
    """Finetune many adapters and label them with what they were made of and how good they are."""

    kind: Literal["lora-zoo"] = "lora-zoo"
    source: Annotated[MiniLMSource | SmilesSource | DigitsSource | DiffusionSource, Field(discriminator="name")]
    adapters: int = Field(200, ge=1)

    def run(self, folder: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
        """See :meth:`make`, without its page."""
        return self.make(folder, quiet=quiet)

    def make(
        self, folder: Path, *, engine: str = "local", workers: int = 1, retries: int = 2, quiet: bool = False
    ) -> dict[str, Any]:
        """Make what is missing of the collection: adapters that an interrupted run has finished are kept.

        Labels and adapters do not depend on engine, workers or interruptions; measured seconds do.

        Args:
            folder: Of the collection.
            engine: ``local`` (with one worker in this process, else a process a worker) or ``ray``.
            workers: Finetunes at a time, on one thread each.
            retries: How often a worker is started again that dies.
            quiet: No progress bar.

        Raises:
            CosetError: The folder holds something else, or adapters could not be made.
        """
        started, written = time.monotonic(), folder / "recipe.yaml"
        if written.is_file():
            self._check_same(written)
        elif folder.is_dir() and any(folder.iterdir()):
            raise CosetError(f"{folder} is not empty and holds no collection; choose another with --output")
        make_folder(folder)
        write_text(written, self.to_yaml())
        places = [folder / "adapters" / f"{number:05d}" for number in range(self.adapters)]
        with _one_thread():
            base = self._begin(folder)
            missing = [number for number, place in enumerate(places) if not (place / LABELS).is_file()]
            with _counted(places, len(missing), quiet):
                if engine == "local" and workers == 1:
                    make_share(self.source, str(folder), self.seed, missing)
                else:
                    self._share_out(folder, missing, engine, workers, retries)
        return self._collect(folder, places, base, started)

    def _begin(self, folder: Path) -> dict[str, float]:
        """Scores of the base; what a source trains before all adapters is trained now, once."""
        kept = folder / "last.ckpt"
        if kept.is_file():
            return torch.load(kept, weights_only=True)["base"]
        base = self.source.open(folder, self.seed).base
        with replacing(kept) as part:
            torch.save({"base": base}, part)
        return base

    def _share_out(self, folder: Path, missing: Sequence[int], engine: str, workers: int, retries: int) -> None:
        """A worker a share: opening a source takes seconds, which every worker spends once."""
        together = self.source.together
        shares: list[list[int]] = [[] for _ in range(workers)]
        for number in missing:
            shares[number // together % workers].append(number)
        arguments = (self.source, str(folder.absolute()), self.seed)
        jobs = [Job(f"share {i}", make_share, (*arguments, share)) for i, share in enumerate(shares) if share]
        failed = [o for o in run_jobs(jobs, engine, workers, retries, threads=1) if o.error]
        if failed:
            raise CosetError(
                f"{len(failed)} of {len(jobs)} workers failed ({failed[0].error}); finished adapters are kept in "
                f"{folder}: run it again to go on"
            )

    def _collect(self, folder: Path, places: Sequence[Path], base: dict[str, float], started: float) -> dict[str, Any]:
        rows = [{"id": p.name, **json.loads((p / LABELS).read_text(encoding="utf-8"))} for p in places]
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / "labels.csv", table.getvalue())
        frame = pd.DataFrame(rows)
        score = "accuracy" if "accuracy" in frame else "alignment"
        metrics = {
            "adapters": len(rows), "recipe": self.name, "seed": self.seed, "score": score,
            score: {k: float(getattr(frame[score], k)()) for k in ("mean", "std", "min", "max")},
            "mean": {c: float(v) for c, v in frame.select_dtypes("number").mean().items()},
            "base": base, "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        write_json(folder / "metrics.json", metrics)
        self.report(folder)
        return metrics

    def _check_same(self, written: Path) -> None:
        """Only the number of adapters may have changed."""
        from coset.runs.recipes import load

        earlier, mine = load(str(written)).model_dump(mode="json"), self.model_dump(mode="json")
        changed = [key for key in ("kind", "source", "seed") if earlier.get(key) != mine[key]]
        if changed:
            raise CosetError(
                f"{written.parent} was made with another {changed[0]}; choose another folder with --output"
            )

    def report(self, folder: Path) -> Path:
        from coset.weights.lora.pages import write_zoo_page

        return write_zoo_page(self, folder)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """How many were made, and how good they are."""
        a = metrics[metrics["score"]]
        return ["adapters", metrics["score"], "deviation", "from", "to"], [
            [str(metrics["adapters"]), *(f"{a[k]:.3f}" for k in ("mean", "std", "min", "max"))]
        ]


def make_share(source: Options, folder: str, seed: int, numbers: Sequence[int]) -> None:
    """Make these adapters of a collection, those that are not there yet."""
    places = {number: Path(folder) / "adapters" / f"{number:05d}" for number in numbers}
    missing = [number for number in numbers if not (places[number] / LABELS).is_file()]
    if missing:
        maker = source.open(Path(folder), seed)  # type: ignore[attr-defined]
        for number in missing:
            places[number].mkdir(parents=True, exist_ok=True)
            write_json(places[number] / LABELS, maker.make(number, places[number]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over more threads round differently, and these tensors are too small to gain by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _counted(places: Sequence[Path], total: int, quiet: bool) -> Iterator[None]:
    """A bar that counts finished adapters in the folder, whoever makes them."""
    stop, before = threading.Event(), len(places) - total

    def watch() -> None:
        while not stop.wait(1.0):
            bar.update(shown, completed=sum((place / LABELS).is_file() for place in places) - before)

    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
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
