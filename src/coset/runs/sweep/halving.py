"""Sweeps that stop early what is worse than the rest: asynchronous successive halving (ASHA) of Ray Tune.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020. After ``grace`` epochs, and after each
``factor`` times as many, a trial goes on only if it is among the best 1 / ``factor`` of those that came as far.

What a trial has done is in its folder. If the driver was killed, every trial tells its earlier epochs again, so that
the comparison is the same, and goes on from its last checkpoint; what was finished or stopped stays so.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from coset.core.errors import CosetError, require
from coset.core.files import write_json, write_text
from coset.reports import Axis, Figure, Panel, Section, Table, figure, line, points
from coset.runs.launch.jobs import Job, Outcome, ray_running
from coset.runs.recipe import Recipe

if TYPE_CHECKING:
    from coset.runs.sweep.trials import Trial

STOPPED, FAILED, COST = "stopped.json", "failed.txt", "cost.json"


@dataclass(frozen=True)
class Halving:
    """How trials are compared.

    Attributes:
        grace: Epochs that every trial may run.
        factor: One in so many goes on.
    """

    grace: int = 4
    factor: int = 3


def check_halving(recipes: Sequence[Recipe], engine: str) -> None:
    """Raise a CosetError unless all of these can be compared epoch by epoch, on Ray."""
    if engine != "ray":
        raise CosetError(f"--asha is Ray Tune's: it needs --engine ray, not {engine}")
    for recipe in recipes:
        if recipe.kind != "graphs":
            raise CosetError(f"{recipe.name} is of kind {recipe.kind}: --asha compares recipes of kind graphs")
    monitors = sorted({recipe.training.monitor for recipe in recipes})  # type: ignore[attr-defined]
    if len(monitors) > 1:
        raise CosetError(f"--asha compares one metric, but these trials monitor {' and '.join(monitors)}")


def run_halving(
    jobs: Sequence[Job],
    recipes: Sequence[Any],
    halving: Halving,
    workers: int,
    retries: int,
    tell: Callable[[Outcome], None],
) -> None:
    """Run trials under Ray Tune; every one of them is told of when it ends, however it does.

    Args:
        jobs: ``run_trial`` with recipe, name and folder.
        recipes: Of these, with one monitor.
        halving: How they are compared.
        workers: Trials at a time.
        retries: How often a trial is started again whose process died.
        tell: Called with each outcome; of a stopped trial ``stopped`` (epochs) and ``val`` (its best) are the result.
    """
    require("ray.tune", "ray")
    from ray import tune

    from coset.runs.metrics import direction

    monitor, epochs = recipes[0].training.monitor, max(recipe.training.epochs for recipe in recipes)
    if halving.grace > epochs or halving.grace < 1 or halving.factor < 2:
        raise CosetError(f"--grace {halving.grace} must be 1 to {epochs} (epochs), and --reduction at least 2")
    scheduler = tune.schedulers.ASHAScheduler(
        time_attr="epoch", max_t=epochs + 1, grace_period=halving.grace, reduction_factor=halving.factor
    )
    by_name = {job.name: job for job in jobs}
    place = Path(jobs[0].arguments[2]).absolute().parent.parent / ".ray"
    told: set[str] = set()

    def ended(name: str, epoch: int | None) -> None:
        if name not in told:
            told.add(name)
            tell(_outcome(by_name[name], monitor, epoch, retries))

    shutil.rmtree(place, ignore_errors=True)  # a killed driver's; what counts is in the folders of the trials
    lengths = {job.name: recipe.training.epochs for job, recipe in zip(jobs, recipes, strict=True)}
    trainable = tune.with_resources(_follow(by_name, lengths, monitor, list(sys.path), os.getcwd()), {"cpu": 1})
    mode = direction(monitor)
    with ray_running(workers):
        tuner = tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(list(by_name))},
            # A process serves one trial after the other: to start one takes longer than many a trial.
            tune_config=tune.TuneConfig(
                metric="val", mode=mode, scheduler=scheduler, max_concurrent_trials=workers, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                storage_path=str(place), name="tune", verbose=0, callbacks=[_listener(ended)],
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        )  # fmt: skip
        try:
            tuner.fit()
        finally:
            shutil.rmtree(place, ignore_errors=True)
    for name in by_name:
        ended(name, None)


def _listener(ended: Callable[[str, int | None], None]) -> Any:
    from ray import tune

    class Listener(tune.Callback):
        """Ray Tune pickles it, class and all, to restore a driver from; ours starts anew from the folders instead."""

        tell: Callable[[str, int | None], None] | None = None

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            if self.tell is not None:
                self.tell(trial.config["trial"], (trial.last_result or {}).get("epoch"))

        def __getstate__(self) -> dict[str, Any]:
            return {}

    listener = Listener()
    listener.tell = ended
    return listener


def _follow(
    jobs: Mapping[str, Job], lengths: Mapping[str, int], monitor: str, path: list[str], here: str
) -> Callable[[dict[str, Any]], None]:
    """What a process of Ray Tune does: tell what a trial has done before, and run what is missing of it."""
    by_name = {name: (*job.arguments[:2], str(Path(job.arguments[2]).absolute())) for name, job in jobs.items()}

    def trial(config: dict[str, Any]) -> None:
        sys.path += [entry for entry in path if entry not in sys.path]
        from coset.runs.sweep.halving import follow_trial

        recipe, name, folder = by_name[config["trial"]]
        if os.path.isdir(here):  # Ray Tune has gone to a folder of its own
            os.chdir(here)
        follow_trial(recipe, name, folder, monitor, lengths[config["trial"]])

    return trial


def follow_trial(recipe: str, name: str, folder: str, monitor: str, epochs: int) -> None:
    """Run one trial under Ray Tune, which may end this process after any epoch but the last.

    That one is not told: nothing would be saved by stopping then, and the trial is still to be tested.
    """
    from ray import tune

    from coset.runs.sweep.trials import run_trial

    place = Path(folder)
    (place / FAILED).unlink(missing_ok=True)
    before, began = _cost(place), time.process_time()

    def told(row: Mapping[str, float]) -> None:
        write_json(place / COST, {"cpu_seconds": round(before + time.process_time() - began, 2)})
        tell(row)

    def tell(row: Mapping[str, float]) -> None:
        epoch = int(row["epoch"]) + 1
        if epoch < epochs:
            tune.report({"epoch": epoch, "val": row[f"val_{monitor}"]})

    for row in _history(place):
        tell(row)
    if (place / STOPPED).is_file():
        return
    try:
        run_trial(recipe, name, folder, told)
        write_json(place / COST, {"cpu_seconds": round(before + time.process_time() - began, 2)})
    except CosetError as error:  # an answer, not worth another attempt
        write_text(place / FAILED, str(error))


def _history(place: Path) -> list[dict[str, float]]:
    with suppress(OSError, pd.errors.EmptyDataError):
        return pd.read_csv(place / "history.csv").to_dict("records")  # type: ignore[return-value]
    return []


def _cost(place: Path) -> float:
    with suppress(OSError, ValueError):
        return float(json.loads((place / COST).read_text(encoding="utf-8"))["cpu_seconds"])
    return 0.0


def _outcome(job: Job, monitor: str, epoch: int | None, retries: int) -> Outcome:
    """What the folder of a trial says; one that Ray Tune has ended after an epoch is marked as stopped."""
    from coset.runs.metrics import direction

    place = Path(job.arguments[2])
    seconds = _cost(place)
    if (place / "metrics.json").is_file():
        return Outcome(job.name, json.loads((place / "metrics.json").read_text(encoding="utf-8")), None, seconds)
    if (place / FAILED).is_file():
        return Outcome(job.name, None, (place / FAILED).read_text(encoding="utf-8"), seconds)
    if epoch is None and not (place / STOPPED).is_file():
        return Outcome(job.name, None, f"its process died, {retries + 1} times", seconds)
    if epoch is not None and not (place / STOPPED).is_file():
        write_json(place / STOPPED, {"epoch": epoch})
    values = [row[f"val_{monitor}"] for row in _history(place)]
    best = min(values) if direction(monitor) == "min" else max(values)
    return Outcome(job.name, {"stopped": len(values), "val": {monitor: best}}, None, seconds)


def ranked(
    trials: Sequence[Trial], recipes: Sequence[Any], outcomes: Mapping[str, Outcome], folder: Path
) -> dict[str, Any]:
    """Trials from the best to the worst by their best validation, and how much was run of what could have been."""
    from coset.runs.metrics import direction

    monitor, sign = recipes[0].training.monitor, 1 if direction(recipes[0].training.monitor) == "min" else -1
    rows: list[dict[str, Any]] = []
    for trial in trials:
        outcome = outcomes[trial.place]
        result, place = outcome.result or {}, folder / "runs" / trial.place
        curve = [row[f"val_{monitor}"] for row in _history(place)]
        rows.append({
            "label": trial.label, "settings": dict(trial.settings), "seed": trial.seed, "folder": trial.place,
            "epochs": len(curve), "val": sign * min(sign * value for value in curve) if curve else None,
            "test": result.get("test", {}).get(monitor), "cpu_seconds": outcome.seconds, "error": outcome.error,
            "state": "failed" if outcome.error else "stopped" if "stopped" in result else "finished",
        })  # fmt: skip
    rows.sort(key=lambda row: (row["val"] is None, sign * (row["val"] or 0)))
    return {
        "ranking": rows, "monitor": monitor, "epochs": sum(row["epochs"] for row in rows),
        "all_epochs": sum(recipe.training.epochs for recipe in recipes),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1),
    }  # fmt: skip


def ranking_section(metrics: Mapping[str, Any], folder: Path) -> Section:
    """The ranking, the curves, and validation against each setting that was varied."""
    rows, monitor = metrics["ranking"], metrics["monitor"]
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    columns = ["", *keys, "seed", "epochs", f"val {monitor}", f"test {monitor}", "CPU s", "state"]
    cells = [
        [str(place + 1), *(row["settings"].get(key) for key in keys), row["seed"], row["epochs"], _short(row["val"]),
         _short(row["test"]), _short(row["cpu_seconds"]), row["state"]] for place, row in enumerate(rows)
    ]  # fmt: skip
    text = (
        f"Best first, by the best validation {monitor}. {metrics['epochs']} of {metrics['all_epochs']} epochs were "
        "run: trials that were worse than the rest were stopped (ASHA), and have not been tested."
    )
    panels = [Panel(f"val {monitor} against epochs", _curves(rows, monitor, folder))]
    panels += [Panel(f"val {monitor} against {key}", _against(rows, key, monitor)) for key in keys]
    return Section("Ranking", text, [Table(columns, cells)], panels)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _curves(rows: Sequence[Mapping[str, Any]], monitor: str, folder: Path) -> Figure:
    marks = []
    for row in rows:
        curve = _history(folder / "runs" / row["folder"])
        epochs, values = [each["epoch"] + 1 for each in curve], [each[f"val_{monitor}"] for each in curve]
        marks.append(line(epochs, values, f"{row['label']} seed={row['seed']}", width=2.5 if row is rows[0] else 1))
    return figure(*marks, x="epochs", y=f"val {monitor}", legend=False)


def _against(rows: Sequence[Mapping[str, Any]], key: str, monitor: str) -> Figure:
    shown = [row for row in rows if row["val"] is not None and key in row["settings"]]
    values: list[Any] = [row["settings"][key] for row in shown]
    with suppress(ValueError):
        values = [float(value) for value in values]
    numbers = [value for value in values if isinstance(value, float)]
    trials = points(
        values, [row["val"] for row in shown], texts=[row["label"] for row in shown],
        colour=[row["epochs"] for row in shown], scale="epochs",
    )  # fmt: skip
    log = bool(numbers) and min(numbers) > 0 and max(numbers) > 20 * min(numbers)
    return figure(trials, x=Axis(key, log=log), y=f"val {monitor}")
