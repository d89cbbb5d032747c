"""A run from beginning to end, the same for every kind of recipe.

:func:`execute` claims the folder, prepares, works, writes the page and last ``metrics.json``. It owns what no
kind should have to think of: the same command given again goes on, signals end a run with the place that was reached,
a run that measured something that is not a number has failed, and data that changed in between are refused.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.outside import parse_tree
from coset.runs.folder import CERTIFICATE, METRICS, RECIPE, RunFolder
from coset.runs.launch import processes
from coset.runs.signals import signal_behind, watch_again, watched
from coset.runs.terminal import problems

if TYPE_CHECKING:
    from coset.runs.live import LivePage
    from coset.runs.recipe import Recipe

V = TypeVar("V")
OnEpoch = Callable[[Mapping[str, float]], None]
PACKAGES = ("coset", "torch", "torch_geometric", "pytorch-lightning", "numba", "numpy", "rdkit", "transformers", "peft")
MEASURED_AGAIN = frozenset({"seconds", "cpu_seconds", "versions", "machine"})
"""Metrics in which two runs of one recipe differ."""


class GivenUp(Exception):
    """What ``on_epoch`` raises to end a run that is not worth going on with; what it has reached is kept."""


@dataclass
class Run:
    """One run, as its kind sees it.

    Attributes:
        recipe: What is run.
        folder: Its folder.
        quiet: No progress bars.
        on_epoch: Called with the row of ``history.csv`` after each epoch, by kinds that count epochs.
        notes: What a reader of the result should know; they become part of the metrics.
        reached: Where the run is.
        live: The page that follows it, if one does.
    """

    recipe: Recipe
    folder: RunFolder
    quiet: bool = False
    on_epoch: OnEpoch | None = None
    notes: list[str] = field(default_factory=list)
    reached: str = ""
    live: LivePage | None = None

    @property
    def first(self) -> bool:
        """Whether this process, of several that share the run, writes its files."""
        return processes.is_first()

    def at(self, place: str) -> None:
        """Say where the run is, e.g. ``epoch 3 of 20``: what is told when it is stopped."""
        self.reached = place
        watch_again()
        if self.live is not None:
            self.live.show()

    def part(self, name: str, compute: Callable[[], V]) -> V:
        """A piece of work that is kept when it is done: see :meth:`coset.runs.folder.RunFolder.part`."""
        self.at(name)
        return self.folder.part(name, compute)

    def say(self, text: str) -> None:
        """A line on standard error, unless the run is to be quiet."""
        if not self.quiet:
            problems.print(text, highlight=False, soft_wrap=True)


@takes_paths
def execute(
    recipe: Recipe,
    path: Path,
    *,
    restart: bool = False,
    quiet: bool = False,
    on_epoch: OnEpoch | None = None,
    prepared: Any = None,
    live: bool = False,
) -> dict[str, Any]:
    """Run a recipe into a folder, or go on with the run that was stopped there; returns the metrics.

    A folder that holds the same run finished is read, not run again.

    Args:
        recipe: What to run.
        path: The folder; made if missing.
        restart: Remove what an earlier run of this recipe left there, and begin anew.
        quiet: Print nothing.
        on_epoch: Called after each epoch with its row of ``history.csv``.
        prepared: What :meth:`~coset.runs.recipe.Recipe.prepare` of a recipe with the same data has returned, not to
            read it again.
        live: Write ``report.html`` while the run is under way, too: a page that reads itself again.

    Raises:
        CosetError: The data or the recipe does not allow it, or the folder holds something else.
        GivenUp: By ``on_epoch``.
        Stopped: By a signal.
    """
    run = Run(recipe, recipe.folder(path), quiet or not processes.is_first(), on_epoch)
    if not run.first:  # it trains with the others; the first process alone writes
        with _threads_of(recipe):
            return {} if _finished_as_asked(run) else recipe.work(run, recipe.prepare(run))
    with run.folder.claimed(), _threads_of(recipe):
        if restart:
            run.folder.clear()
        if _settle(run):
            return run.folder.metrics()
        before = float(run.folder.status().get("seconds", 0.0)), time.monotonic()
        if live:
            _follow(run, before[1])
        try:
            metrics = _carry_out(run, prepared, before)
        except GivenUp as reason:
            _end(run, before, "stopped", str(reason))
            raise
        except BaseException as error:
            if (stop := signal_behind(error)) is not None:
                _end(run, before, "stopped", f"signal {stop.name}")
                stop.told(run.reached, f"coset run --resume {run.folder}" if run.folder.resumable() else "")
                raise (stop if watched() else KeyboardInterrupt) from None
            _end(run, before, "failed", " ".join(str(error).split()) or type(error).__name__)
            raise
    return metrics


def _follow(run: Run, since: float) -> None:
    from coset.runs.live import LivePage

    page, told = LivePage(run, since), run.on_epoch

    def on_epoch(row: Mapping[str, float]) -> None:
        page.on_epoch(row)
        if told is not None:
            told(row)

    run.live, run.on_epoch = page, on_epoch
    run.say(f"watch it in a browser: {page.address}")


@contextmanager
def _threads_of(recipe: Recipe) -> Iterator[None]:
    from coset.relations.kernels.threads import pytorch_threads

    with pytorch_threads(recipe.threads):
        yield


def _settle(run: Run) -> bool:
    """Whether the folder holds this very run, finished.

    Raises:
        CosetError: It holds a run of another recipe.
    """
    if not run.folder.holds_run():
        return False
    recipe = run.recipe
    old, new = _settled(run), _flat(recipe.model_dump(mode="json"))
    other = {"name", "description", *recipe.may_change}
    differs = next((key for key in {**old, **new} if key not in other and old.get(key) != new.get(key)), None)
    if differs is not None:
        raise CosetError(
            f"{run.folder} holds a run of another recipe: its {differs} is {old.get(differs)!r}, here it is "
            f"{new.get(differs)!r}; choose another folder with --output, or go on with that run: "
            f"coset run --resume {run.folder}"
        )
    if not run.folder.finished():
        return False
    same = _finished_as_asked(run)
    if same:
        _check_data_are_those(run)
        run.folder.drop_parts()  # which a full disk or a kill may have kept it from
    else:  # it goes on, further than it was asked to before
        (run.folder / METRICS).unlink()
    return same


def _check_data_are_those(run: Run) -> None:
    """Read the data of a finished run again if their files were changed or replaced since, and compare.

    Raises:
        CosetError: They are others.
    """
    then, began = run.folder.status().get("data"), (run.folder / RECIPE).stat().st_mtime
    given = [path for path in run.recipe.files if path.exists()]
    inside = [file for path in given if path.is_dir() for file in path.iterdir() if file.is_file()]
    times = [max(stat.st_mtime, stat.st_ctime) for stat in (path.stat() for path in (*given, *inside))]
    if then is not None and max(times, default=0.0) > began:
        _check_same(run, run.recipe.identity(run.recipe.prepare(run)), then)


def _check_same(run: Run, data: str | None, then: str | None) -> None:
    if data != then:
        raise CosetError(
            f"the data are not those that the run in {run.folder} began with (now {data}, then {then}); "
            "bring them back, or choose another folder with --output"
        )


def _finished_as_asked(run: Run) -> bool:
    """Whether nothing is left to do; all processes of a run must come to the same answer, or some wait for ever."""
    if not run.folder.finished():
        return False
    old, new = _settled(run), _flat(run.recipe.model_dump(mode="json"))
    made_with = run.folder.status().get("settings", old)  # the recipe in the folder may have been edited since
    return all(made_with.get(key) == new.get(key) == old.get(key) for key in run.recipe.may_change)


def _settled(run: Run) -> dict[str, Any]:
    """The settings of the folder's recipe by dotted keys; what this version has added since has its default."""
    values = parse_tree(run.folder.recipe(), run.folder / RECIPE, dict[str, Any], "YAML")
    with suppress(ValidationError):
        values = type(run.recipe).model_validate(values).model_dump(mode="json")
    return _flat({str(key): value for key, value in values.items()})


def _carry_out(run: Run, prepared: Any, before: tuple[float, float]) -> dict[str, Any]:
    recipe, folder, cpu = run.recipe, run.folder, time.process_time()
    if prepared is None:
        prepared = recipe.prepare(run)
    data, earlier = recipe.identity(prepared), folder.status()
    if "data" in earlier:
        _check_same(run, data, earlier["data"])
    folder.begin(recipe.to_yaml())
    settings = {key: value for key, value in _flat(recipe.model_dump(mode="json")).items() if key in recipe.may_change}
    folder.write_status(state="running", at="", why="", data=data, settings=settings)
    if run.live is not None:
        run.live.show()
    own = recipe.work(run, prepared)
    metrics = {
        **own,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "data_identity": data,
        "notes": [*run.notes, *own.get("notes", ())],
        "seconds": round(before[0] + time.monotonic() - before[1], 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "versions": versions(),
        "machine": machine(),
    }
    check_finite(metrics)
    folder.write_status(state="running", at="page")
    recipe.page(folder, metrics)
    folder.write_json(METRICS, metrics)
    folder.drop_parts()
    folder.write_status(state="done", at="", seconds=metrics["seconds"])
    return metrics


def _end(run: Run, before: tuple[float, float], state: str, why: str) -> None:
    if run.folder.holds_run():
        seconds = round(before[0] + time.monotonic() - before[1], 1)
        run.folder.write_status(state=state, at=run.reached, why=why, seconds=seconds)
        if run.live is not None:
            run.live.show(f"{state}: {why}. The same command given again goes on.")


def write_certificate(folder: RunFolder, reports: Sequence[Any]) -> None:
    """``certificate.json``: what was measured of each claim of symmetry."""
    folder.write_json(CERTIFICATE, [report.to_dict() for report in reports])


def check_finite(metrics: Mapping[str, Any]) -> None:
    """Refuse metrics that hold something that is not a finite number; what cannot be measured is ``None``.

    Raises:
        CosetError: One of them is infinite or not a number; the message names it.
    """
    wrong = next((name for name, value in _numbers(metrics) if not math.isfinite(value)), None)
    if wrong is not None:
        raise CosetError(
            f"the run measured {wrong} = {dict(_numbers(metrics))[wrong]}: it has failed; lower the learning rate, or "
            "look at the data"
        )


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, int]:
    """Cores, and how many threads kernels and PyTorch's own operations have."""
    import torch

    from coset.relations.kernels.threads import thread_count

    return {
        "cpu_count": os.cpu_count() or 1,
        "threads": thread_count(),
        "pytorch_threads": torch.get_num_threads(),
    }


def _numbers(value: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _numbers(entry, f"{prefix}{key}.")
    elif isinstance(value, list | tuple):
        for place, entry in enumerate(value):
            yield from _numbers(entry, f"{prefix}{place}.")
    elif isinstance(value, float):
        yield prefix[:-1], value


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, Mapping) else {f"{prefix}{key}": entry}
    return flat
