"""The trials of a sweep: each a recipe run into a folder of its own, by :func:`coset.runs.run.execute`.

They run on processes of this machine or on Ray (:mod:`coset.runs.launch.jobs`). What is finished stays finished: the
same sweep started again into the same folder runs what is missing, and a trial goes on from where it was stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coset.core.errors import CosetError
from coset.core.options import Options
from coset.core.outside import parse_tree
from coset.runs.folder import RUNS, RunFolder
from coset.runs.launch.jobs import Job, Outcome, run_jobs
from coset.runs.recipe import Recipe
from coset.runs.run import GivenUp, OnEpoch, Run, execute
from coset.runs.sweep.outcomes import stopped_at, was_given_up


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        recipe: Settled and checked, its seed among it.
        labels: What tells it from other trials, but for the seed, e.g. ``recipe`` and each setting that is varied.
        label: The same as a text: the row of the table that it belongs to.
    """

    recipe: Recipe
    labels: Mapping[str, str]
    label: str

    @property
    def place(self) -> str:
        """Name of its folder."""
        return place_of(self.label, self.recipe.seed)


def place_of(label: str, seed: int) -> str:
    """Name of the folder of a trial."""
    return re.sub(r"[^A-Za-z0-9.+_=-]+", "_", f"{label}-seed{seed}".replace(" ", "-"))


class LaunchOptions(Options):
    """Where trials run; what comes out is the same."""

    engine: Literal["local", "ray"] = Field("local", description="processes of this machine, or Ray")
    workers: int = Field(1, ge=1, description="trials at a time")
    retries: int = Field(2, ge=0, description="starts more for a trial whose process dies")


Follow = Callable[[], OnEpoch]
"""Follows a trial from the process that runs it: gives a function to call after each epoch."""


class Choice:
    """Which trials there are; here, all that are known, each run to its end.

    Args:
        known: In the order of the sweep.
    """

    def __init__(self, known: Iterable[Trial]):
        self.known = list(known)

    def more(self) -> Iterator[Trial] | None:
        """Trials that are chosen on the way, one whenever there is a worker for it; they are known from then on."""
        return None

    @property
    def notes(self) -> list[str]:
        """What a reader of the result should know."""
        return []

    def follow(self, trial: Trial) -> Follow | None:
        """What follows a trial that is to be run."""
        return None

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """Told of every trial that has ended, or had ended before."""


def run_trials(choice: Choice, folder: RunFolder, launch: LaunchOptions) -> Iterator[tuple[Trial, Outcome]]:
    """Every trial with what became of it, as they end.

    Args:
        choice: Which there are.
        folder: Of the sweep; each trial has its own below ``runs/``.
        launch: Where they run.
    """
    runs, given = folder.path.absolute() / RUNS, dict[str, Trial]()
    missing: list[Trial] = []
    for trial in list(choice.known):
        outcome = earlier_outcome(trial, runs)
        if outcome is None:
            missing.append(trial)
            continue
        choice.ended(trial, outcome)
        yield trial, outcome

    def job(trial: Trial) -> Job:
        given[trial.place] = trial
        arguments = (trial.recipe.to_yaml(), trial.recipe.name, str(runs / trial.place), choice.follow(trial))
        return Job(trial.place, run_trial, arguments)

    more = choice.more()
    jobs = [job(trial) for trial in missing] if more is None else map(job, chain(missing, more))
    with closing(run_jobs(jobs, launch.engine, launch.workers, launch.retries)) as outcomes:
        for outcome in outcomes:
            choice.ended(given[outcome.name], outcome)
            yield given[outcome.name], outcome


def earlier_outcome(trial: Trial, runs: Path) -> Outcome | None:
    """What an earlier start made of a trial, if it ended."""
    folder = trial.recipe.folder(runs / trial.place)
    if not folder.holds_run() or folder.recipe() != trial.recipe.to_yaml():
        return None
    seconds = float(folder.status().get("seconds", 0.0))
    if folder.finished():
        return Outcome(trial.place, folder.metrics(), None, seconds)
    return Outcome(trial.place, stopped_at(trial.recipe, folder), None, seconds) if was_given_up(folder) else None


def run_trial(recipe: str, name: str, folder: str, follow: Follow | None) -> dict[str, Any]:
    """Run one recipe into its folder, or go on with it there; returns its metrics, or where it was given up.

    Args:
        recipe: The settled recipe, as YAML.
        name: Of the recipe.
        folder: Where to.
        follow: What follows it.
    """
    from coset.runs.recipes import check

    values = parse_tree(recipe, name, dict[str, Any], "YAML")
    checked, path = check(values, name), Path(folder)
    _wait_for(RunFolder(path))
    try:
        told = None if follow is None else follow()
        return execute(checked, path, quiet=True, on_epoch=told, prepared=_prepared(checked, path))
    except GivenUp:
        return stopped_at(checked, checked.folder(path))


def _wait_for(folder: RunFolder, seconds: float = 30.0) -> None:
    """The process of a driver that was killed ends when it sees that, and not before."""
    until = time.monotonic() + seconds
    while folder.holds_run() and folder.in_use() and time.monotonic() < until:
        time.sleep(0.2)


_LAST: list[tuple[tuple[str, str], Any]] = []
"""What the last trial of this process has read, under its kind and what it has read."""


def _prepared(recipe: Recipe, path: Path) -> Any:
    """What the last trial of this process has read, if this one reads the same; data are never changed."""
    if recipe.reads is None:
        return None
    key = recipe.kind, recipe.reads
    if not _LAST or _LAST[0][0] != key:
        _LAST.clear()  # two sets of data need not fit into memory
        _LAST.append((key, recipe.prepare(Run(recipe, recipe.folder(path), quiet=True))))
    return _LAST[0][1]


def check_different(places: Sequence[str]) -> None:
    """Raise a CosetError if two trials would share a folder."""
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise CosetError(f"two trials of this sweep would share a folder ({twice}): repeated recipes, values or seeds")
