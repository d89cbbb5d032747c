"""Several runs on one page: a row a run, mean and deviation over seeds of the same recipe, curves overlaid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from coset.core.errors import CosetError
from coset.reports import Panel, Section, Table, Widget, colour, fragment, plots, write_sections
from coset.reports.scores import higher_is_better, label, number, score
from coset.reports.verdicts import named
from coset.runs.results import RunResults

OF_A_SEED = ("split_seed", "fold", "data_seed")
"""Of ``data``: what may differ between runs about the same thing."""
NOT_THE_RECIPE = ("seed", "description", "output", *(f"data.{key}" for key in OF_A_SEED))
Draw = tuple[str | None, int | None]
"""What a run was drawn as: the identity of its data and split, where the run says it, and its seed."""


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ in nothing but the seed, of the run or of its split.

    Attributes:
        name: The recipe, with the settings that tell it from others of the same name.
        runs: Its runs, by seed.
    """

    name: str
    runs: list[RunResults]

    def values(self, metric: str, split: str) -> list[float]:
        return [run.scores(split)[metric] for run in self.runs if metric in run.scores(split)]

    def draws(self, metric: str, split: str) -> dict[Draw, float]:
        """The metric by what was drawn."""
        return {draw_of(run): run.scores(split)[metric] for run in self.runs if metric in run.scores(split)}

    def summary(self, metric: str, split: str) -> dict[str, Any] | None:
        """Mean and sample deviation over the runs; ``None`` if none has the metric."""
        values = self.values(metric, split)
        if not values:
            return None
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return {"mean": float(np.mean(values)), "deviation": deviation, "count": len(values)}


def draw_of(run: RunResults) -> Draw:
    """Which data and split a run had, and its seed."""
    identity = run.metrics.get("data_identity")
    return (None if identity is None else str(identity)), run.seed


@dataclass(frozen=True)
class Subject:
    """Runs that are about the same thing: the same data, split, targets and task. Only these are ranked.

    Attributes:
        name: What they are about; empty where the recipes do not say.
        groups: The recipes, best first.
        split: Whose metrics are compared.
        metrics: The one that chose the epoch first.
    """

    name: str
    groups: list[Group]
    split: str
    metrics: list[str]

    @property
    def same_splits(self) -> bool:
        """Whether the means of all recipes are over the same splits, so that they can be ranked."""
        if not self.metrics:
            return True
        draws = [group.draws(self.metrics[0], self.split) for group in self.groups]
        return len({frozenset(split for split, _ in its) for its in draws if its}) <= 1


def write_comparison(run_dirs: Sequence[Path | str], output: Path | str) -> Path:
    """Write one page about several runs; those of different data stand in parts of their own.

    Args:
        run_dirs: Folders of runs.
        output: The HTML file to write.

    Raises:
        CosetError: A folder holds no run, no folder is given, or the page cannot be written.
    """
    if not run_dirs:
        raise CosetError("nothing to compare: name at least one run's folder")
    # The same folder named twice is one run, not a second seed.
    runs = [RunResults(folder) for folder in dict.fromkeys(Path(folder).resolve() for folder in run_dirs)]
    subjects = subjects_of(runs)
    title = f"{_counted(sum(len(s.groups) for s in subjects), 'recipe')}, {_counted(len(runs), 'run')}"
    sections = []
    for place, subject in enumerate(subjects):
        sections += _sections(subject, place, len(subjects) > 1)
    return write_sections(Path(output), title, sections, kind="comparison", verdict=_verdict(subjects))


def _verdict(subjects: Sequence[Subject]) -> str:
    """Which recipe is best, where all are about one thing."""
    if len(subjects) != 1:
        return f"These runs are about {len(subjects)} different things, which are not ranked against one another."
    if not subjects[0].metrics:
        return "These runs have no metric in common that could rank them."
    metric, split, best = subjects[0].metrics[0], subjects[0].split, subjects[0].groups[0]
    found = best.summary(metric, split)
    if found is None:
        return f"{best.name} has no {named(metric)} on {split}."
    deviation = "" if found["deviation"] is None else f" ± {number(found['deviation'], 2)}"
    over = f" over {found['count']} runs" if found["count"] > 1 else ""
    if not subjects[0].same_splits:
        return "The recipes were not tested on the same splits: their means cannot be ranked."
    first = "Best" if len(subjects[0].groups) > 1 else "Alone"
    return f"{first}: {best.name}, {named(metric)} {score(found['mean'], metric)}{deviation} on {split}{over}."


def subjects_of(runs: Sequence[RunResults]) -> list[Subject]:
    """The runs by what they are about, in order of first appearance."""
    members: dict[str, list[RunResults]] = {}
    for run in runs:
        members.setdefault(json.dumps(_about(run), sort_keys=True, default=str), []).append(run)
    described = [_about(its[0]) for its in members.values()]
    subjects = []
    for about, its in zip(described, members.values(), strict=True):
        split = "test" if any(run.scores("test") for run in its) else "val"
        metrics = list(dict.fromkeys(m for run in its for m in [run.monitor, *run.scores(split)] if m))
        metrics = [metric for metric in metrics if any(metric in run.scores(split) for run in its)]
        groups = _best_first(group_runs(its), metrics, split)
        subjects.append(Subject(_subject_name(about, described), groups, split, metrics))
    return subjects


def _about(run: RunResults) -> dict[str, Any]:
    """What the metrics of a run are about: all that its recipe says of data and task, but for what seeds change."""
    recipe = run.recipe
    data = {f"data.{key}": value for key, value in _flat(recipe.get("data") or {}).items() if key not in OF_A_SEED}
    task = (recipe.get("training") or {}).get("task")
    return {"kind": recipe.get("kind"), **data, **({"task": task} if task else {})}


def _subject_name(about: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    """The name of the data, with what tells it from others."""
    name = str(about.get("data.name") or about.get("kind") or "")
    differing = [key for key in about if len({str(other.get(key)) for other in others}) > 1 and key != "data.name"]
    return ", ".join([name, *(f"{key.removeprefix('data.')}={about[key]}" for key in differing)])


def paired_differences(subject: Subject) -> Table | None:
    """The best recipe against each other one over the runs of both that had the same data, split and seed; ``None``
    where no two have two of them.

    Such runs share what makes a split easy, so the spread of their differences is smaller than that of the recipes.
    The interval is Student's, of 95 %. Where splits differ from pair to pair, their training parts overlap and the
    differences are not independent: the variance of the mean is then (1/n + test rows / training rows) times that of
    the differences (Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003).
    """
    if not subject.metrics:
        return None
    metric, (first, *rest) = subject.metrics[0], subject.groups
    best = first.draws(metric, subject.split)
    rows = []
    for group in rest:
        own = group.draws(metric, subject.split)
        pairs = [draw for draw in own if draw in best]
        if len(pairs) < 2:
            continue
        differences = np.array([own[draw] - best[draw] for draw in pairs])
        mean, half = float(differences.mean()), half_of_interval(differences, _overlap(first, pairs, subject.split))
        verdict = "differs" if abs(mean) > half else "tie"
        rows.append([group.name, str(len(differences)), f"{mean:+.4g}", f"{mean - half:+.4g} to {mean + half:+.4g}",
                     verdict])  # fmt: skip
    columns = ["recipe", "pairs of runs", f"{label(metric)} minus that of {first.name}", "95 % interval", "verdict"]
    return Table(columns, rows) if rows else None


def half_of_interval(differences: np.ndarray, overlap: float = 0.0) -> float:
    """Half the length of Student's interval of their mean, of 95 %; ``overlap`` as in :func:`paired_differences`."""
    count, deviation = len(differences), float(differences.std(ddof=1))
    return float(student.ppf(0.975, count - 1)) * deviation * (1 / count + overlap) ** 0.5


def _overlap(group: Group, pairs: Sequence[Draw], split: str) -> float:
    """Test rows over training rows if the pairs are of several splits of one data set; 0 if they are of one."""
    if len({identity for identity, _ in pairs}) < 2:
        return 0.0
    rows = next(run for run in group.runs if draw_of(run) in pairs).predictions.get("split")
    counts = {} if rows is None else rows.value_counts().to_dict()
    return counts.get(split, 0) / counts["train"] if counts.get("train") else 0.0


def _sections(subject: Subject, number: int, several: bool) -> list[Section]:
    """Summary, spread over seeds, curves, and every run."""
    groups, metrics, split = subject.groups, subject.metrics, subject.split
    colours = [colour(i) for i in range(len(groups))]
    of, place = (f": {subject.name}", f"-{number}") if several else ("", "")
    first = f"; best mean {label(metrics[0])} first" if metrics else ""
    text = f"Metrics on {split}, mean ± sample deviation over runs that differ in nothing but the seed{first}."
    if not subject.same_splits:
        text += " The recipes were not tested on the same splits, so that their means do not say which is better."
    shown = {"groups": groups, "metrics": metrics, "split": split, "colours": colours}
    pairs = paired_differences(subject)
    if pairs is not None:
        text += " Differences are of runs with the same data, split and seed; intervals allow for splits that overlap."
    sections = [Section(
        f"Summary{of}", text, widget=_widget("summary", **shown), anchor=f"summary{place}",
        tables=[] if pairs is None else [pairs],
    )]  # fmt: skip
    if metrics:
        dots = [_dots(metric, groups, split) for metric in metrics]
        text = "A dot a run; the upright bar is the mean, with one deviation to either side."
        sections.append(
            Section(f"Spread over seeds{of}", text, panels=dots, anchor=f"spread{place}", short=f"Spread{of}")
        )
    if curves := plots.overlaid_curves(_histories(groups)):
        swatches = _widget("swatches", groups=groups, colours=colours)
        sections.append(Section(
            f"Training curves{of}", "A line a run, a colour a recipe.", panels=curves, widget=swatches,
            anchor=f"training{place}", short=f"Training{of}",
        ))  # fmt: skip
    return [*sections, Section(f"Runs{of}", widget=_widget("runs", **shown), anchor=f"runs{place}")]


def _widget(macro: str, **shown: Any) -> Widget:
    return Widget(fragment("coset.runs:comparison.html.j2", macro, **shown))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def group_runs(runs: Sequence[RunResults]) -> list[Group]:
    """Put runs together whose recipes agree in all but the seed, in order of first appearance."""
    members: dict[str, list[RunResults]] = {}
    for run in runs:
        members.setdefault(json.dumps([run.name, _settings(run)], sort_keys=True, default=str), []).append(run)
    grouped = [sorted(seeds, key=lambda run: run.seed or 0) for seeds in members.values()]
    names = [seeds[0].name for seeds in grouped]
    groups = []
    for seeds, name in zip(grouped, names):
        namesakes = [other[0] for other, its in zip(grouped, names) if its == name]
        groups.append(Group(name + _difference(seeds[0], namesakes), seeds))
    return groups


def _settings(run: RunResults) -> dict[str, Any]:
    """The recipe as dotted keys, without what may differ between seeds."""
    return {key: value for key, value in _flat(run.recipe).items() if key not in NOT_THE_RECIPE}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {f"{prefix}{key}": entry}
    return flat


def _difference(run: RunResults, namesakes: list[RunResults]) -> str:
    """Settings in which runs of one name differ, e.g. ``, model.layers=4``."""
    settings = [_settings(other) for other in namesakes]
    keys = dict.fromkeys(key for entry in settings for key in entry)
    differing = [key for key in keys if len({str(entry.get(key)) for entry in settings}) > 1]
    own = _settings(run)
    return "".join(f", {key}={own[key]}" for key in differing if key in own)


def _best_first(groups: list[Group], metrics: list[str], split: str) -> list[Group]:
    """Sorted by the mean of the first metric; groups without it last."""
    if not metrics:
        return groups
    metric = metrics[0]
    sign = -1 if higher_is_better(metric) else 1

    def rank(group: Group) -> float:
        values = group.values(metric, split)
        return sign * float(np.mean(values)) if values else float("inf")

    return sorted(groups, key=rank)


def _dots(metric: str, groups: list[Group], split: str) -> Panel:
    """Baselines are drawn only if all runs agree on them, which they do on the same test molecules."""
    baselines = [run.baseline(split).get(metric) for group in groups for run in group.runs]
    known = [value for value in baselines if value is not None]
    agree = len(known) == len(baselines) and np.ptp(known) <= 1e-6 * max(1.0, abs(known[0]))
    rows = [(g.name, i, g.values(metric, split)) for i, g in enumerate(groups) if g.values(metric, split)]
    return plots.spread_over_seeds(metric, split, rows, known[0] if agree else None)


def _histories(groups: list[Group]) -> list[tuple[str, int, Any]]:
    return [(g.name, i, run.history) for i, g in enumerate(groups) for run in g.runs if len(run.history)]
