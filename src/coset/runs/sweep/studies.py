"""Recipes of kind ``sweep``: one recipe run again and again, with one setting varied, beside other recipes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from coset.core.options import Options
from coset.reports import Panel
from coset.runs.recipes import load
from coset.runs.sweep.base import SweepBase
from coset.runs.sweep.trials import Trial


class Series(Options):
    """One curve."""

    changes: list[str] = Field([], description="changes to the base, e.g. model.coarsening=random")
    values: list[int | float | str] | None = Field(None, description="values of the setting; by default all")


class SweepRecipe(SweepBase):
    """Error and time of a model against one of its settings, beside other models."""

    kind: Literal["sweep"] = "sweep"
    base: str = Field(description="recipe that is varied")
    overrides: list[str] = Field([], description="changes to every run, e.g. training.epochs=20")
    setting: str = Field(description="what is varied, e.g. model.bag")
    values: list[int | float | str] = Field(min_length=1, description="its values")
    series: dict[str, Series] = Field({"": Series.model_validate({})}, description="curves, by name", min_length=1)
    references: dict[str, str] = Field({}, description="other recipes to set beside: a name, and a recipe")
    fewer_seeds: dict[int | str, list[int]] = Field(
        {}, description="seeds of single values or references that cost much"
    )

    @model_validator(mode="after")
    def _fewer_seeds_are_some(self) -> SweepRecipe:
        known = {str(value) for curve in self.series.values() for value in curve.values or self.values}
        for name, seeds in self.fewer_seeds.items():
            if str(name) not in known | set(self.references) or not set(seeds) <= set(self.seeds):
                raise ValueError(f"fewer_seeds.{name}={seeds}: name a value or a reference, and some of {self.seeds}")
        return self

    @property
    def short(self) -> str:
        """The setting without the section that it is in."""
        return self.setting.rpartition(".")[2]

    def trials(self) -> list[Trial]:
        """Setting by setting within a seed: what is cut off has been everywhere."""
        fewer = {str(name): seeds for name, seeds in self.fewer_seeds.items()}
        trials = []
        for seed in self.seeds:
            for name, curve in self.series.items():
                for value in self.values if curve.values is None else curve.values:
                    if seed in fewer.get(str(value), self.seeds):
                        changes = (*curve.changes, f"{self.setting}={value}")
                        trials.append(self._trial(self.base, name, str(value), seed, *changes))
            for name, recipe in self.references.items():
                if seed in fewer.get(name, self.seeds):
                    trials.append(self._trial(recipe, name, "", seed))
        return trials

    def _trial(self, recipe: str, series: str, value: str, seed: int, *changes: str) -> Trial:
        found = load(recipe, [*self.overrides, *changes, f"seed={seed}"])
        label = " ".join(filter(None, [series, f"{self.short}={value}" if value else ""]))
        return Trial(found, {"series": series, "value": value}, label)

    def panels(self, rows: list[dict[str, Any]]) -> list[Panel]:
        from coset.runs.sweep.pages import against_time, against_values

        rows = [row for row in rows if row["values"]]
        if not rows:
            return []
        metric = rows[0]["metric"]
        found = [Panel(f"{metric} against {self.short}", against_values(rows, self.short))]
        if all(row["cpu_seconds_per_epoch"] is not None for row in rows):
            found.append(Panel(f"{metric} against time", against_time(rows)))
        return found
