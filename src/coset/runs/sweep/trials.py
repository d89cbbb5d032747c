"""``coset sweep``: recipes x settings x seeds, each run in a folder of its own, with one table of mean and deviation.

Trials run on processes of this machine or on Ray (:mod:`coset.runs.launch.jobs`). What is finished stays finished: the
same sweep started again into the same folder runs what is missing, and goes on from the last epoch where a recipe can.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import Progress

from coset.core.errors import CosetError
from coset.core.files import write_json, write_text
from coset.reports import Axis, Figure, Panel, Section, Table, figure, points, write_sections
from coset.runs.launch.jobs import Job, Outcome, run_jobs
from coset.runs.recipe import Options, Recipe
from coset.runs.recipes import load
from coset.runs.sweep.halving import Halving, check_halving, ranked, ranking_section, run_halving

OnEpoch = Callable[[Mapping[str, float]], None]


class Trial(NamedTuple):
    """One run.

    Attributes:
        recipe: A name, or a YAML file.
        settings: What is varied, and its value here.
        seed: Of the run.
        overrides: All changes to the recipe, those of ``settings`` and the seed among them.
    """

    recipe: str
    settings: tuple[tuple[str, str], ...]
    seed: int
    overrides: tuple[str, ...]

    @property
    def label(self) -> str:
        """What tells the row of this trial in the table; the same for all its seeds."""
        return " ".join([self.recipe, *(f"{key}={value}" for key, value in self.settings)])

    @property
    def place(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^A-Za-z0-9.+_=-]+", "_", f"{self.label}-seed{self.seed}".replace(" ", "-"))


class Range(NamedTuple):
    """Numbers to draw from: ``uniform(a,b)``, ``loguniform(a,b)``, or ``randint(a,b)`` without b, as in Ray Tune."""

    kind: str
    low: float
    high: float

    @classmethod
    def read(cls, text: str) -> Range | None:
        """A range, or ``None`` if the text is something else.

        Raises:
            ValueError: Its bounds are no numbers, or in the wrong order.
        """
        found = re.fullmatch(r"(uniform|loguniform|randint)\(([^,()]+),([^,()]+)\)", text.replace(" ", ""))
        if found is None:
            return None
        try:
            low, high = float(found[2]), float(found[3])
        except ValueError:
            raise ValueError(f"{text}: the bounds of a range are two numbers") from None
        if not low < high or (found[1] == "loguniform" and low <= 0) or (found[1] == "randint" and low % 1 + high % 1):
            raise ValueError(f"{text}: give the lower bound first, above 0 for loguniform, whole for randint")
        return cls(found[1], low, high)

    def draw(self, generator: np.random.Generator) -> str:
        """One number, to four significant digits."""
        if self.kind == "randint":
            return str(generator.integers(int(self.low), int(self.high)))
        if self.kind == "loguniform":
            return f"{math.exp(generator.uniform(math.log(self.low), math.log(self.high))):.4g}"
        return f"{generator.uniform(self.low, self.high):.4g}"

    def __str__(self) -> str:
        return f"{self.kind}({self.low:g},{self.high:g})"


def draw_settings(varied: Mapping[str, list[str] | Range], samples: int) -> list[tuple[tuple[str, str], ...]]:
    """Different settings, always the same for the same keys and values.

    Raises:
        ValueError: There are not so many.
    """
    generator = np.random.default_rng(0)
    found: dict[tuple[tuple[str, str], ...], None] = {}
    for _ in range(100 * samples):
        one = ((k, v.draw(generator) if isinstance(v, Range) else str(generator.choice(v))) for k, v in varied.items())
        found.setdefault(tuple(one))
        if len(found) == samples:
            return list(found)
    raise ValueError(f"--samples {samples}: there are only {len(found)} different settings")


class Sweep(Options):
    """Which trials there are."""

    recipes: list[str] = Field(min_length=1, description="names of recipes, or YAML files")
    changes: list[str] = Field([], description="key=value, or key=a,b,c to vary it")
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    samples: int | None = Field(None, ge=1, description="settings drawn at random; the whole grid without")

    @model_validator(mode="after")
    def _different(self) -> Sweep:
        places = [trial.place for trial in self.trials()]
        if len(set(places)) < len(places):
            raise ValueError("two trials of this sweep would share a folder: repeated recipes, values or seeds")
        return self

    def trials(self) -> list[Trial]:
        """All of them, seed by seed within a setting."""
        fixed: list[str] = []
        varied: dict[str, list[str] | Range] = {}
        for change in self.changes:
            key, mark, text = change.partition("=")
            if not mark or not key:
                raise ValueError(f"{change!r} must read key=value, or key=a,b,c to vary it")
            values = Range.read(text) or split_values(text)
            if isinstance(values, Range) or len(values) > 1:
                varied[key] = values
            else:
                fixed.append(change)
        return [
            Trial(recipe, chosen, seed, (*fixed, *(f"{key}={value}" for key, value in chosen), f"seed={seed}"))
            for recipe in self.recipes
            for chosen in self._settings(varied)
            for seed in self.seeds
        ]

    def _settings(self, varied: Mapping[str, list[str] | Range]) -> list[tuple[tuple[str, str], ...]]:
        """All of the grid, or so many different ones drawn at random; a larger draw begins with a smaller one."""
        if self.samples is not None:
            return draw_settings(varied, self.samples)
        ranges = [f"{key}={values}" for key, values in varied.items() if isinstance(values, Range)]
        if ranges:
            raise ValueError(f"{ranges[0]} is a range: say with --samples how many settings to draw")
        return list(itertools.product(*([(key, str(value)) for value in values] for key, values in varied.items())))


def split_values(text: str) -> list[str]:
    """``a,b,c`` as three; commas within brackets or quotes do not part: ``[1,2],[3]`` are two.

    >>> split_values("32,64")
    ['32', '64']
    >>> split_values("[uL,vv],[uL]")
    ['[uL,vv]', '[uL]']
    """
    parts = re.findall(r"(?:\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|\"[^\"]*\"|'[^']*'|[^,])+", text)
    return [part.strip() for part in parts] or [""]


def run_sweep(
    sweep: Sweep,
    folder: Path,
    *,
    engine: str = "local",
    workers: int = 1,
    retries: int = 2,
    metric: str | None = None,
    halving: Halving | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run what is missing, and write ``sweep.csv`` (a row a trial), ``metrics.json`` and ``report.html``.

    Args:
        sweep: The trials.
        folder: Of the sweep; each trial has its own below ``runs/``.
        engine: ``local`` or ``ray``.
        workers: Trials at a time.
        retries: How often a trial is started again whose process died.
        metric: Dotted place in a trial's ``metrics.json``, e.g. ``test.rmse``; by default what the recipe monitors.
        halving: Stop what is worse than the rest (on Ray only); the page then ranks trials by validation.
        quiet: No progress bar.

    Returns:
        ``rows`` (of the table), ``failed`` (name and reason of each), ``metric``, ``seconds``; with ``halving`` also
        ``ranking`` and what was saved.

    Raises:
        CosetError: A trial is impossible (nothing is run then), or the folder belongs to another sweep.
    """
    started = time.monotonic()
    trials = sweep.trials()
    checked = [load(trial.recipe, trial.overrides) for trial in trials]
    metric = metric or monitored(checked[0])
    if halving is not None:
        check_halving(checked, engine)
    _settle(sweep, folder)
    jobs = [Job(trial.place, run_trial, (recipe.to_yaml(), recipe.name, str(folder / "runs" / trial.place)))
            for trial, recipe in zip(trials, checked, strict=True)]  # fmt: skip
    outcomes: dict[str, Outcome] = {}
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        shown = bar.add_task("trials", total=len(jobs))

        def tell(outcome: Outcome) -> None:
            outcomes[outcome.name] = outcome
            _write_table(trials, outcomes, folder)
            bar.advance(shown)

        if halving is not None:
            run_halving(jobs, checked, halving, workers, retries, tell)
        else:
            for outcome in run_jobs(jobs, engine, workers, retries):
                tell(outcome)
    metrics = {
        "rows": summarise(trials, outcomes, metric), "metric": metric, "trials": len(trials), "engine": engine,
        "failed": {name: outcome.error for name, outcome in sorted(outcomes.items()) if outcome.error},
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    if halving is not None:
        metrics |= ranked(trials, checked, outcomes, folder)
    write_json(folder / "metrics.json", metrics)
    write_page(sweep, metrics, folder)
    return metrics


def run_trial(recipe: str, name: str, folder: str, on_epoch: OnEpoch | None = None) -> dict[str, Any]:
    """Run one recipe into its folder, or take what an earlier sweep left there; returns its metrics.

    Args:
        recipe: The resolved recipe, as YAML.
        name: Of the recipe.
        folder: Where to.
        on_epoch: Called after each epoch that is run, for recipes of kind ``graphs``.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    written = place / "trial.yaml"
    write_text(written, recipe)
    checked = load(str(written))
    same = (place / "recipe.yaml").is_file() and (place / "recipe.yaml").read_text(encoding="utf-8") == recipe
    if same and (place / "metrics.json").is_file():
        return json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    told = {} if on_epoch is None else {"on_epoch": on_epoch}
    metrics = checked.run(place, resume=same and (place / "last.ckpt").is_file(), quiet=True, **told)
    checked.report(place)
    return metrics


def monitored(recipe: Recipe) -> str:
    """The number that a recipe is judged by."""
    monitor = getattr(getattr(recipe, "training", None), "monitor", None)
    return f"test.{monitor}" if monitor else "test"


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of nested metrics, by dotted names.

    >>> numbers({"test": {"rmse": 1.5, "by": {"a": 2}}, "name": "x"})
    {'test.rmse': 1.5, 'test.by.a': 2.0}
    """
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found


def summarise(trials: Sequence[Trial], outcomes: Mapping[str, Outcome], metric: str) -> list[dict[str, Any]]:
    """Mean and deviation over seeds, a row a recipe and setting, in the order of the trials.

    Where a data set has no test split its validation split stands in, and the row says so.
    """
    rows: list[dict[str, Any]] = []
    for label, group in itertools.groupby(trials, lambda trial: trial.label):
        done = [outcomes[trial.place] for trial in group if trial.place in outcomes]
        tables = [numbers(outcome.result) for outcome in done if outcome.error is None]
        name = metric
        if not any(metric in table for table in tables) and metric.startswith("test."):
            name = f"val.{metric.removeprefix('test.')}"
        values = [table[name] for table in tables if name in table]
        rows.append(
            {
                "label": label, "metric": name, "values": values, "failed": len(done) - len(tables),
                "mean": statistics.fmean(values) if values else None,
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
                "seconds": statistics.fmean(o.seconds for o in done) if done else None,
            }
        )  # fmt: skip
    return rows


def table_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The rows as text."""
    names = list(dict.fromkeys(row["metric"] for row in rows))
    columns = ["", names[0] if len(names) == 1 else "result", "runs", "failed"]
    return columns, [
        [row["label"], _spread(row), str(len(row["values"])), str(row["failed"] or "")] for row in rows
    ]  # fmt: skip


def write_page(sweep: Sweep, metrics: Mapping[str, Any], folder: Path) -> Path:
    """``report.html`` of a sweep."""
    rows = metrics["rows"]
    columns, cells = table_of(rows)
    text = f"{metrics['metric']}: mean and standard deviation over seeds {', '.join(map(str, sweep.seeds))}."
    notes = [f"{name} failed: {reason}" for name, reason in metrics["failed"].items()]
    panels = [Panel(metrics["metric"], _dots(rows))] if any(row["values"] for row in rows) else []
    command = " ".join(["coset sweep", *sweep.recipes, *sweep.changes, "--seeds", ",".join(map(str, sweep.seeds))])
    sections = [Section("Trials", text, [Table(columns, cells)], panels, notes=notes)]
    if "ranking" in metrics:
        sections.insert(0, ranking_section(metrics, folder))
        command += f" --samples {sweep.samples} --engine ray --asha" if sweep.samples else " --engine ray --asha"
    return write_sections(
        folder / "report.html", "Sweep", sections,
        facts={"trials": str(metrics["trials"]), "seconds": str(metrics["seconds"])}, command=command,
        recipe=_yaml(sweep),
    )  # fmt: skip


def _settle(sweep: Sweep, folder: Path) -> None:
    file = folder / "sweep.yaml"
    if file.is_file() and file.read_text(encoding="utf-8") != _yaml(sweep):
        raise CosetError(f"{folder} holds another sweep (see {file}); choose another folder with --output")
    if not file.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise CosetError(f"{folder} is not empty and holds no sweep; choose another folder with --output")
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CosetError(f"cannot write to {folder}: {error.strerror}; choose another folder with --output") from error
    write_text(file, _yaml(sweep))


def _yaml(sweep: Sweep) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(sweep.model_dump(mode="json", exclude_none=True)))


def _write_table(trials: Sequence[Trial], outcomes: Mapping[str, Outcome], folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    for trial in trials:
        if (outcome := outcomes.get(trial.place)) is not None:
            known = {"recipe": trial.recipe, **dict(trial.settings), "seed": trial.seed, "folder": trial.place}
            rows.append({**known, "error": outcome.error, **numbers(outcome.result or {}), "wall": outcome.seconds})
    write_text(folder / "sweep.csv", pd.DataFrame(rows).to_csv(index=False))


def _spread(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "no result"
    return f"{row['mean']:.4g}" + ("" if row["deviation"] is None else f" ± {row['deviation']:.2g}")


def _dots(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every trial a dot, a row a setting."""
    marks = []
    for row in rows:
        values = [value for value in row["values"] if math.isfinite(value)]
        marks.append(points(values, [row["label"]] * len(values), row["label"]))
    return figure(*marks, y=Axis(reversed=True), legend=False)


def seeds_of(text: str) -> list[int]:
    """``5`` as the seeds 0 to 4, ``3,7`` as those two.

    >>> seeds_of("3"), seeds_of("3,7")
    ([0, 1, 2], [3, 7])
    """
    numbers_given: Iterator[int] = (int(part) for part in text.split(","))
    try:
        given = list(numbers_given)
    except ValueError as error:
        raise CosetError(f"--seeds {text}: give a number of seeds, or seeds as 0,1,2") from error
    if min(given) < (1 if len(given) == 1 else 0):
        raise CosetError(f"--seeds {text}: give a number of seeds, or seeds as 0,1,2")
    return list(range(given[0])) if len(given) == 1 else given
