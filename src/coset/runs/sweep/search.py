"""Recipes of kind ``search``, which ``coset sweep`` makes: recipes x settings x seeds, with one table.

Settings are a grid, or drawn from ranges; or each is chosen by how those before it did (TPE). What is worse than the
rest can be stopped early (ASHA).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from coset.core.errors import CosetError
from coset.reports import Panel
from coset.runs.folder import RunFolder
from coset.runs.recipes import load
from coset.runs.sweep.base import SweepBase
from coset.runs.sweep.spaces import Settings, Space
from coset.runs.sweep.trials import Choice, Trial, check_different, place_of
from coset.runs.sweep.tuning import Better, HalvingOptions, Objective, Tuner

GIVE_UP = 100
"""Settings in a row that were tried before, after which there are taken to be no others."""


class SearchRecipe(SweepBase):
    """Recipes over settings and seeds."""

    kind: Literal["search"] = "search"
    recipes: list[str] = Field(min_length=1, description="names of recipes, or YAML files")
    changes: list[str] = Field([], description="key=value; key=a,b,c or key=loguniform(a,b) varies a setting")
    samples: int | None = Field(None, ge=1, description="settings to draw; the whole grid without")
    search: Literal["random", "tpe"] = Field("random", description="how they are drawn: TPE learns from those before")
    asha: HalvingOptions | None = Field(None, description="stop early what is worse than the rest")
    better: Better | None = Field(None, description="which values of the metric are, where that is not known")

    @model_validator(mode="after")
    def _different(self) -> SearchRecipe:
        if self.search == "tpe" and self.samples is None:
            raise ValueError("search=tpe: say with samples how many settings to draw")
        try:
            check_different([place_of(label_of(*pair), seed) for pair in self._pairs() for seed in self.seeds])
        except CosetError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def space(self) -> Space:
        """What varies."""
        return Space.read(self.changes)

    @property
    def count(self) -> int:
        if self.search == "tpe":
            assert self.samples is not None
            return self.samples * len(self.seeds)
        return len(self._pairs()) * len(self.seeds)

    @property
    def command(self) -> str:
        parts = [shlex.join(["coset", "sweep", *self.recipes, *self.changes])]
        parts.append(f"--seeds {','.join(map(str, self.seeds))}")
        parts += [f"--samples {self.samples}"] if self.samples else []
        parts += [f"--search {self.search}"] if self.search != "random" else []
        parts += [f"--asha --grace {self.asha.grace} --reduction {self.asha.reduction}"] if self.asha else []
        parts += [f"--engine {self.launch.engine}"] if self.launch.engine != "local" else []
        return " ".join(parts)

    def trials(self) -> list[Trial]:
        """All of the grid or of the draw, seed by seed within a setting; for TPE examples, to be checked."""
        return [self.trial(*pair, seed) for pair in self._pairs() for seed in self.seeds]

    def trial(self, recipe: str, settings: Settings, seed: int) -> Trial:
        """One of them.

        Raises:
            CosetError: It is impossible.
        """
        changes = (*self.space.fixed, *(f"{key}={value}" for key, value in settings), f"seed={seed}")
        return Trial(load(recipe, changes), {"recipe": recipe, **dict(settings)}, label_of(recipe, settings))

    def objective(self, trials: Any) -> Objective | None:
        """The validation that all trials monitor, or else their metric; of grids without ASHA none."""
        if self.search == "random" and self.asha is None:
            return None
        recipes = [trial.recipe for trial in trials]
        if self.asha is not None:
            other = next((recipe for recipe in recipes if not recipe.counts_epochs), None)
            if other is not None:
                raise CosetError(
                    f"{other.name} is of kind {other.kind}, which tells nothing on the way: ASHA cannot compare it"
                )
            most = max(recipe.most_epochs for recipe in recipes)
            if self.asha.grace > most:
                raise CosetError(f"asha.grace={self.asha.grace} must be 1 to {most} (epochs)")
        return Objective.between(recipes, self.metric, self.better)

    def prepare(self, run: Any) -> list[Trial]:
        trials = super().prepare(run)
        self.objective(trials)
        return trials

    def choose(self, folder: RunFolder, trials: list[Trial]) -> Choice:
        objective = self.objective(trials)
        if objective is None:
            return Choice(trials)
        return Tuned(self, folder, objective) if self.search == "tpe" else Tuner(trials, folder, objective, self.asha)

    def panels(self, rows: list[dict[str, Any]]) -> list[Panel]:
        from coset.runs.sweep.pages import dots

        return [Panel(rows[0]["metric"], dots(rows))] if any(row["values"] for row in rows) else []

    def _pairs(self) -> list[tuple[str, Settings]]:
        space = self.space
        if self.search == "tpe":
            settings = list(space.examples())
        else:
            settings = space.grid() if self.samples is None else space.drawn(self.samples)
        return [(recipe, chosen) for recipe in self.recipes for chosen in settings]


class Tuned(Tuner):
    """Settings that TPE chooses, the recipe among them if there are several; every seed of each is a trial.

    Args:
        recipe: Which they are.
        folder: Of the sweep; what an earlier start has asked for is in its journal.
        objective: What they are compared by.
    """

    def __init__(self, recipe: SearchRecipe, folder: RunFolder, objective: Objective):
        super().__init__((), folder, objective, recipe.asha)
        self.recipe = recipe
        self.seen = dict.fromkeys(self.asked())
        self.known += [recipe.trial(*pair, seed) for pair in self.seen for seed in recipe.seeds]

    def more(self) -> Iterator[Trial]:
        """Trials until there are as many settings as were wanted, or no others."""
        wanted, again = self.recipe.samples or 0, 0
        while len(self.seen) < wanted and again < GIVE_UP:
            trials = self._next()
            again = 0 if trials else again + 1
            self.known += trials
            yield from trials

    def _next(self) -> list[Trial]:
        """The trials of a new setting; none if it was tried before, or is impossible."""
        asked = self.ask()
        names = self.recipe.recipes
        recipe = names[0] if len(names) == 1 else str(asked.suggest_categorical("recipe", names))
        settings = self.recipe.space.asked(asked)
        if (recipe, settings) in self.seen:
            self.drop(asked)
            return []
        try:
            trials = [self.recipe.trial(recipe, settings, seed) for seed in self.recipe.seeds]
        except CosetError as error:  # such combinations are not known beforehand
            self.drop(asked, f"{label_of(recipe, settings)} is impossible: {error}")
            return []
        self.seen[recipe, settings] = None
        for number, trial in enumerate(trials):
            if number:
                asked = self.again(asked.params)
                if len(names) > 1:
                    asked.suggest_categorical("recipe", names)
                self.recipe.space.asked(asked)
            self.note(asked, trial.place, recipe=recipe, settings=settings)
        return trials


def label_of(recipe: str, settings: Settings) -> str:
    """What tells the row of a trial in the table; the same for all its seeds."""
    return " ".join([recipe, *(f"{key}={value}" for key, value in settings)])
