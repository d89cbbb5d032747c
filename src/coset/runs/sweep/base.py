"""What all sweeps are: a recipe whose work is to run trials, with the folder of a run like any other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from coset.core.files import make_folder
from coset.reports import Panel
from coset.runs.folder import METRICS, RUNS, RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run
from coset.runs.sweep.outcomes import numbers, state_of, was_given_up
from coset.runs.sweep.tables import Ended, ranked, summarise, table_of, trial_table
from coset.runs.sweep.trials import Choice, LaunchOptions, Trial, check_different, run_trials
from coset.runs.sweep.tuning import JOURNAL, Objective
from coset.runs.terminal import progress
from coset.symmetry import EquivarianceReport

TABLE = "sweep.csv"


class SweepFolder(RunFolder):
    """The folder of a sweep, which is finished when its trials are."""

    def finished(self) -> bool:
        """Whether all trials are there, and none has failed: what is missing is run when the sweep is started again."""
        if not super().finished():
            return False
        trials = self.metrics()["states"]
        return all(state != "failed" and self._ended(place) for place, state in trials.items())

    def _ended(self, place: str) -> bool:
        trial = RunFolder(self / RUNS / place)
        return trial.finished() or was_given_up(trial)


class SweepBase(Recipe):
    """Runs of other recipes, in one table."""

    leaves: ClassVar[tuple[str, ...]] = (RUNS, TABLE, JOURNAL)
    may_change: ClassVar[frozenset[str]] = frozenset(f"launch.{key}" for key in LaunchOptions.model_fields)

    seeds: list[int] = Field([0, 1, 2], min_length=1, description="of every setting")
    metric: str | None = Field(
        None, description="place in the metrics, e.g. test.rmse, or one of the test; by default what a trial monitors"
    )
    launch: LaunchOptions = Field(default_factory=lambda: LaunchOptions.model_validate({}))

    @abstractmethod
    def trials(self) -> list[Trial]:
        """All of them that are known before any is run.

        Raises:
            CosetError: One is impossible.
        """

    @abstractmethod
    def panels(self, rows: list[dict[str, Any]]) -> list[Panel]:
        """Figures of the page, from the rows of the table."""

    @property
    def count(self) -> int:
        """Trials in all."""
        return len(self.trials())

    @property
    def command(self) -> str | None:
        """That makes this sweep."""
        return None

    def objective(self, trials: Sequence[Trial]) -> Objective | None:
        """What trials are compared by while others run; ``None`` if they are not."""
        return None

    def choose(self, folder: RunFolder, trials: list[Trial]) -> Choice:
        """Which trials are run: all, and to their end."""
        return Choice(trials)

    def folder(self, path: Path) -> RunFolder:
        return SweepFolder(path, self.leaves)

    def prepare(self, run: Run) -> list[Trial]:
        """Every trial is checked before the first one starts.

        Raises:
            CosetError: One is impossible, or two would share a folder.
        """
        trials = self.trials()
        check_different([trial.place for trial in trials])
        return trials

    def work(self, run: Run, prepared: list[Trial]) -> dict[str, Any]:
        """Run what is missing, and write ``sweep.csv``: a row a trial."""
        folder, count = run.folder, self.count
        (folder / METRICS).unlink(missing_ok=True)  # of an earlier start, some of whose trials failed or are lost
        make_folder(folder / RUNS)
        choice, ended = self.choose(folder, prepared), dict[str, Any]()
        with progress("trials", count, run.quiet) as each:
            for trial, outcome in run_trials(choice, folder, self.launch):
                ended[trial.place] = trial, outcome
                ended = {trial.place: ended[trial.place] for trial in choice.known if trial.place in ended}
                folder.write_text(TABLE, trial_table(ended).to_csv(index=False))
                run.at(f"trial {len(ended)} of {count}")
                each()
        run.notes += choice.notes
        return self._measured(run, ended)

    def _measured(self, run: Run, ended: Ended) -> dict[str, Any]:
        trials = [trial for trial, _ in ended.values()]
        metric = self.metric or trials[0].recipe.judged_by
        rows = summarise(ended, metric if "." in metric or not self.metric else f"test.{metric}", run.folder)
        if not any(row["values"] for row in rows):
            known = list(dict.fromkeys(name for _, outcome in ended.values() for name in numbers(outcome.result or {})))
            if known:
                run.notes.append(f"no trial has {metric}; they have {', '.join(known)}")
        objective, shown = self.objective(trials), {row["metric"] for row in rows}
        return {
            "rows": rows,
            "metric": shown.pop() if len(shown) == 1 else metric,
            "trials": len(ended),
            "states": {place: state_of(outcome) for place, (_, outcome) in ended.items()},
            "failed": {place: outcome.error for place, (_, outcome) in ended.items() if outcome.error},
            **({} if objective is None else ranked(ended, objective, run.folder)),
        }

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.runs.sweep.pages import write

        return write(self, folder, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a setting: mean and deviation over its seeds."""
        return table_of(metrics["rows"])

    def remarks(self, metrics: dict[str, Any]) -> Sequence[str]:
        """How many trials there were, and which is the best."""
        told = [f"{metrics['trials']} trials; look at report.html"]
        if "ranking" in metrics:
            best = metrics["ranking"][0]
            told.insert(
                0, f"best by {metrics['objective']}: {best['label']} seed={best['seed']} in runs/{best['folder']}"
            )
            if metrics["all_epochs"]:
                told[0] += f"; {metrics['epochs']} of {metrics['all_epochs']} epochs run"
        return told

    def verify(self, folder: Path | None = None, progress: bool = False) -> Sequence[EquivarianceReport]:
        """The claims of the model of the first trial, untrained."""
        return self.trials()[0].recipe.verify(None, progress)
