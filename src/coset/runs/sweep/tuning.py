"""Sweeps that choose and stop trials by how others do: Optuna, with a journal in the folder of the sweep.

Settings are drawn by the tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter
Optimization", NIPS 2011). Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter
Tuning", MLSys 2020): after ``grace`` epochs, and after each ``reduction`` times as many, a trial goes on only if it is
among the best 1 / ``reduction`` of those that came as far.

The process of a trial writes each epoch's validation into the journal and reads there how others do, whatever engine
has started it. What became of a trial is in its own folder, so that a killed sweep goes on: trials that were finished
or stopped stay so, the others go on from their last checkpoint and are told of no epoch twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from coset.core.errors import CosetError, require
from coset.core.options import Options
from coset.runs.folder import RUNS, RunFolder
from coset.runs.launch.jobs import Outcome
from coset.runs.recipe import Recipe
from coset.runs.run import GivenUp, OnEpoch
from coset.runs.sweep.outcomes import WORSE, curve_of, numbers, state_of
from coset.runs.sweep.spaces import Settings
from coset.runs.sweep.trials import Choice, Follow, Trial

if TYPE_CHECKING:  # an extra
    from optuna import Study
    from optuna.trial import Trial as Asked

JOURNAL = "journal.log"
Better = Literal["lower", "higher"]


class HalvingOptions(Options):
    """How trials are compared on the way."""

    grace: int = Field(4, ge=1, description="epochs that every trial may run")
    reduction: int = Field(3, ge=2, description="one trial in so many goes on")


class Objective(NamedTuple):
    """What trials are compared by.

    Attributes:
        metric: Of kinds that count epochs the metric of validation that they monitor; else a place in their metrics.
        better: Which way.
        on_validation: Whether it is told after each epoch.
    """

    metric: str
    better: Better
    on_validation: bool

    @classmethod
    def between(cls, recipes: Sequence[Recipe], metric: str | None, better: Better | None) -> Objective:
        """What recipes are compared by.

        Args:
            recipes: All of them.
            metric: Place in the metrics that they are judged by if they count no epochs.
            better: Which way, if the metric does not say.

        Raises:
            CosetError: They monitor different metrics, or it is not known which way is better.
        """
        from coset.runs.metrics import known_direction

        counting = all(recipe.counts_epochs for recipe in recipes)
        names = {str(recipe.monitor) for recipe in recipes} if counting else {metric or r.judged_by for r in recipes}
        if len(names) > 1:
            raise CosetError(f"a search compares one metric, but these trials monitor {' and '.join(sorted(names))}")
        (name,) = names
        way = {"min": "lower", "max": "higher"}.get(known_direction(name.rpartition(".")[2]) or "", better)
        if way is None:
            raise CosetError(f"which values of {name} are better? say so with --better lower or --better higher")
        return cls(name, way, counting)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"val {self.metric}" if self.on_validation else self.metric

    def of(self, trial: Trial, outcome: Outcome, folder: RunFolder) -> float | None:
        """The best value of a trial; ``None`` if it has none."""
        if not self.on_validation:
            return numbers(outcome.result or {}).get(self.metric)
        values = [v for v in curve_of(self.metric, trial.recipe.folder(folder / RUNS / trial.place)) if v == v]
        return (max if self.better == "higher" else min)(values, default=None)


def follow(
    journal: Path, better: Better, halving: HalvingOptions | None, number: int, column: str, epochs: int
) -> OnEpoch:
    """A function that writes each epoch of a trial into the journal, and raises ``GivenUp`` if enough others do better.

    Args:
        journal: The file.
        better: Which way.
        halving: How trials are stopped; none is without.
        number: Of the trial in the journal.
        column: Of the history that tells its validation.
        epochs: The last is not told: nothing would be saved by stopping then, and the trial is still to be tested.
    """
    import optuna

    study = study_in(journal, better, halving)
    known = study.get_trials(deepcopy=False)[number]
    trial = optuna.trial.Trial(study, known._trial_id)

    def told(row: Mapping[str, float]) -> None:
        epoch = int(row["epoch"]) + 1
        if epoch >= epochs or epoch in known.intermediate_values:
            return
        trial.report(float(row[column]), epoch)
        if halving is not None and trial.should_prune():
            raise GivenUp(WORSE)

    return told


def study_in(journal: Path, better: Better, halving: HalvingOptions | None) -> Study:
    """The study in a journal, begun if it is missing."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner: Any = optuna.pruners.NopPruner()
    if halving is not None:
        pruner = optuna.pruners.SuccessiveHalvingPruner(halving.grace, halving.reduction)
    return optuna.create_study(
        study_name="sweep",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal.absolute()))),  # its lock links to it
        pruner=pruner,
        direction="maximize" if better == "higher" else "minimize",
        load_if_exists=True,
    )


class Tuner(Choice):
    """The trials of a sweep as Optuna knows them: each compared with the others.

    Args:
        known: Those that are known, in the order of the sweep.
        folder: Of the sweep.
        objective: What they are compared by.
        halving: How they are stopped; none is without.

    Raises:
        CosetError: Optuna is not installed.
    """

    def __init__(self, known: Sequence[Trial], folder: RunFolder, objective: Objective, halving: HalvingOptions | None):
        super().__init__(known)
        require("optuna", "search")
        self.folder, self.objective, self.halving = folder, objective, halving
        self.study = study_in(folder / JOURNAL, objective.better, halving)
        self._numbers: dict[str, int] = {}
        """Of trials that have not ended, by their place."""
        for each in self.study.get_trials(deepcopy=False):
            if not each.state.is_finished():
                if "place" in each.user_attrs:
                    self._numbers[each.user_attrs["place"]] = each.number
                else:  # a kill came between its two lines
                    self._tell(each.number, None, "FAIL")

    def asked(self) -> list[tuple[str, Settings]]:
        """Recipes and settings that were asked for so far, in that order."""
        noted = [each.user_attrs for each in self.study.get_trials(deepcopy=False) if "settings" in each.user_attrs]
        return [(each["recipe"], tuple((key, value) for key, value in each["settings"])) for each in noted]

    def ask(self) -> Asked:
        """A new trial of Optuna's. What it suggests follows from what is known so far and from nothing else, so that a
        sweep that was stopped goes on as if it had not been."""
        import optuna

        self.study.sampler = optuna.samplers.TPESampler(seed=len(self.study.get_trials(deepcopy=False)))
        return self.study.ask()

    def note(self, asked: Asked, place: str, **more: Any) -> None:
        """Say which trial of the sweep one of Optuna's is."""
        for name, value in {**more, "place": place}.items():
            asked.set_user_attr(name, value)
        self._numbers[place] = asked.number

    def again(self, params: Mapping[str, Any]) -> Asked:
        """A new trial of Optuna's with known parameters, which are still to be asked of it."""
        self.study.enqueue_trial(dict(params))
        return self.study.ask()

    @property
    def notes(self) -> list[str]:
        """Settings that were impossible."""
        found = [each.user_attrs.get("note") for each in self.study.get_trials(deepcopy=False)]
        return list(dict.fromkeys(filter(None, found)))

    def drop(self, asked: Asked, note: str = "") -> None:
        """One of Optuna's that is not run, with what a reader should know of it."""
        asked.set_user_attr("note", note)
        self._tell(asked.number, None, "FAIL")

    def follow(self, trial: Trial) -> Follow | None:
        """Into the journal, after each epoch."""
        if trial.place not in self._numbers:
            self.note(self.study.ask(), trial.place)
        if not self.objective.on_validation:
            return None
        journal, number = (self.folder / JOURNAL).absolute(), self._numbers[trial.place]
        column, epochs = f"val_{self.objective.metric}", trial.recipe.most_epochs
        return partial(follow, journal, self.objective.better, self.halving, number, column, epochs)

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """Note what became of a trial."""
        number = self._numbers.pop(trial.place, None)
        if number is None:
            return
        value = self.objective.of(trial, outcome, self.folder)
        state = {"stopped": "PRUNED", "failed": "FAIL", "finished": "COMPLETE"}[state_of(outcome)]
        self._tell(number, value, "FAIL" if value is None else state)

    def _tell(self, number: int, value: float | None, state: str) -> None:
        from optuna.trial import TrialState

        self.study.tell(number, value if state == "COMPLETE" else None, state=TrialState[state])
