"""Recipes of kind ``merging``: train networks on different tasks from different seeds, merge them in many ways."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator

from coset.core.errors import CosetError
from coset.core.files import replacing
from coset.core.identity import digest
from coset.core.options import Options
from coset.core.outside import read_saved
from coset.runs.folder import RunFolder
from coset.runs.recipe import Recipe
from coset.runs.run import Run
from coset.runs.terminal import progress
from coset.weights.merging.augmentation import AugmentationOptions
from coset.weights.merging.diagnosis import diagnose
from coset.weights.merging.encoders import Encoder, Inputs, count_samples, take
from coset.weights.merging.evaluation import evaluate, numbers_in
from coset.weights.merging.fitting import Fit
from coset.weights.merging.methods import MERGE_METHODS, Outcome, Output, Setting, merge
from coset.weights.merging.networks import MERGED_NETWORKS, NetworkOptions, TaskOptions
from coset.weights.merging.tasks import Task, train_jointly
from coset.weights.merging.teachers import Merged, Teacher

MULTITASK = "multitask"
"""One network trained on the labels of all tasks, with their whole training sets: a reference, not a way to merge."""
COMPARED = (
    "originals", "ensemble", "average", "slerp", "slerp_global", "task_arithmetic", "weight_matching",
    "activation_matching", "regmean", "zipit", "heads_first", "distill_random", "distill_first", "distill_average",
    "distill_aligned", "fs_diagonal", "fs_first", "fs_average", "fs_random", "fs_align", "fs_first_cross",
    "fs_align_cross", "fs_local", "fs_zip", "fs_sequential", MULTITASK,
)  # fmt: skip
"""What a recipe compares that names no methods."""


class TeacherOptions(Options):
    """How the networks to merge are trained, on the labels of their tasks.

    ``one_start`` is a control: networks that begin as one trained network lie in one basin.
    """

    steps: int = Field(400, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    batch_size: int = Field(64, ge=1)
    limit: int = Field(10000, ge=10, description="training samples of a task at most")
    one_start: bool = Field(False, description="all begin with the same weights, trained on all tasks")
    extra_steps: int = Field(60, ge=1, description="with one_start, steps on the own task")
    cache: str | None = Field("runs/teachers", description="folder in which trained networks are kept")


class MergingRecipe(Recipe):
    """Every method on the same teachers and samples, with the same budget of tuning, over several seeds."""

    kind: Literal["merging"] = "merging"
    tasks: list[TaskOptions] = Field(min_length=2)
    network: Annotated[NetworkOptions, MERGED_NETWORKS.choice]
    teachers: TeacherOptions = Field(default_factory=lambda: TeacherOptions.model_validate({}))
    methods: list[str] = list(COMPARED)
    samples: list[int] = [20, 100]
    held_out: int = Field(100, ge=2, description="unlabelled samples of each task to choose learning rates by")
    seeds: int = Field(5, ge=1)
    steps: int = Field(300, ge=1)
    batch_size: int | None = None
    learning_rates: list[float] = [1e-3, 3e-3, 1e-2]
    weight_decay: float = 1e-3
    rank: int = Field(4, ge=1)
    width: int | None = Field(None, description="of the merged network")
    cross: float = Field(0.3, ge=0)
    output: Output | None = Field(
        None, description="maps from merged features to the teachers': trained (free) or none (tied); by default free "
        "for FS-Merge, tied for distillation"
    )  # fmt: skip
    augmentation: AugmentationOptions = Field(default_factory=lambda: AugmentationOptions.model_validate({}))

    @field_validator("methods")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        known = (*MERGE_METHODS, MULTITASK)
        unknown = [m for m in value if m not in known]
        if unknown:
            raise ValueError(f"method {unknown[0]!r} is unknown; choose from {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> MergingRecipe:
        for task in self.tasks:
            if task.form != self.network.reads:
                raise ValueError(
                    f"network.name={self.network.name} reads {self.network.reads}, the task {task.data} is made of "
                    f"{task.form}: tasks must fit it"
                )
        if self.teachers.one_start and not self.network.alike:
            raise ValueError("teachers.one_start=true begins with one network: leave network.other_sizes out")
        return self

    def prepare(self, run: Run) -> list[Task]:
        """The tasks as the first seed splits them.

        Raises:
            CosetError: Data are missing, or a task has too few samples.
        """
        tasks = self.load_tasks(self.seed)
        for task in tasks:
            _samples(task, max(self.samples), self.held_out)
        return tasks

    def identity(self, prepared: list[Task]) -> str:
        return digest(prepared)

    def work(self, run: Run, prepared: list[Task]) -> dict[str, Any]:
        """Teachers, then every method at every number of samples, seed by seed."""
        seeds = [self.seed + number for number in range(self.seeds)]
        cases = [(s, n, m) for s in seeds for n in self.samples for m in self.methods]
        trained = lru_cache(maxsize=1)(self.trained)  # once a seed, and only where a case of it is missing
        rows = []
        with progress("merging", len(cases), run.quiet) as each:
            for seed, samples, method in cases:
                case = partial(self._case, trained, method, samples, seed)
                rows.append(run.part(f"{method}, {samples} samples, seed {seed}", case))
                each()
        basins = run.part("basins", lambda: self._basins(*trained(seeds[-1])))
        return self._metrics(rows) | {"basins": basins}

    def _case(
        self, trained: Callable[[int], tuple[list[Task], list[Teacher]]], method: str, samples: int, seed: int
    ) -> dict[str, Any]:
        return self.measured(method, *trained(seed), samples, seed)

    def _basins(self, tasks: list[Task], teachers: list[Teacher]) -> list[str]:
        """What the diagnosis before a merge says of teachers."""
        if len({t.encoder.wiring().widths[t.encoder.wiring().stream] for t in teachers}) > 1:
            return []
        return [str(found) for found in diagnose(teachers, [take(t.train, slice(0, 50)) for t in tasks])]

    def load_tasks(self, seed: int) -> list[Task]:
        """The tasks, as the network reads them."""
        return self.network.tasks(self.tasks, seed, self.teachers.limit)

    def trained(self, seed: int) -> tuple[list[Task], list[Teacher]]:
        """The tasks and a network trained on each, from the cache if they are there."""
        tasks, made = self.load_tasks(seed), []
        for number, task in enumerate(tasks):
            one = self._kept(self._start(tasks, number, seed), [task], seed, number)
            made.append(Teacher(task.name, one.encoder, one.heads[task.name]))
        return tasks, made

    def jointly_trained(self, tasks: list[Task], seed: int) -> Merged:
        """One network for all tasks, trained on their labels for as many steps as there are tasks times a teacher's."""
        return self._kept(self._start(tasks, 0, seed), tasks, seed, -1)

    def base(self, tasks: list[Task], seed: int) -> Encoder:
        """What the first teacher began as, and with ``one_start`` all of them."""
        start = self._start(tasks, 0, seed)
        return self._kept(start, tasks, seed, -2).encoder if self.teachers.one_start else start

    def _start(self, tasks: list[Task], number: int, seed: int) -> Encoder:
        return self.network.build(tasks[number], number, 1000 * seed + (0 if self.teachers.one_start else number))

    def _kept(self, encoder: Encoder, tasks: list[Task], seed: int, number: int) -> Merged:
        """A network trained on some tasks, read if it is in the cache and put there if not."""
        wiring, cached = encoder.wiring(), self._cached(seed, number)
        if cached is None or not cached.is_file():
            made = self._train(encoder, tasks, seed, number)
            if cached is not None:
                cached.parent.mkdir(parents=True, exist_ok=True)
                states = {name: head.state_dict() for name, head in made.heads.items()}
                with replacing(cached) as part:
                    torch.save({"encoder": made.encoder.state_dict(), "heads": states}, part)
            return made
        state = read_saved(cached)
        encoder.load_state_dict(state["encoder"])
        heads = {t.name: torch.nn.Linear(wiring.widths[wiring.output], t.classes) for t in tasks}
        for name, head in heads.items():
            head.load_state_dict(state["heads"][name])
            head.requires_grad_(False)
        return Merged(encoder.eval().requires_grad_(False), heads)

    def _train(self, encoder: Encoder, tasks: list[Task], seed: int, number: int) -> Merged:
        t = self.teachers
        options: dict[str, Any] = {"learning_rate": t.learning_rate, "batch_size": t.batch_size}
        if number >= 0 and t.one_start:
            start = self._kept(encoder, self.load_tasks(seed), seed, -2)
            options["learning_rate"] /= 3
            return train_jointly(start.encoder, tasks, steps=t.extra_steps, seed=seed + 7, heads=start.heads, **options)
        if number == -2:
            return train_jointly(encoder, tasks, steps=t.steps, seed=seed, **options)
        return train_jointly(encoder, tasks, steps=len(tasks) * t.steps, seed=1000 * seed + number, **options)

    def _cached(self, seed: int, number: int) -> Path | None:
        if self.teachers.cache is None:
            return None
        what = self.model_dump(mode="json", include={"tasks", "network"}) | {"seed": seed, "number": number}
        what["teachers"] = self.teachers.model_dump(exclude={"cache"})
        what["format"] = 3  # one start knows all tasks
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        return Path(self.teachers.cache) / f"{key}.pt"

    def setting(self, seed: int, base: Encoder | None = None) -> Setting:
        """What all methods share."""
        fit = Fit(steps=self.steps, weight_decay=self.weight_decay, batch_size=self.batch_size, seed=seed)
        return Setting(
            self.rank, width=self.width, learning_rates=self.learning_rates, cross=self.cross, output=self.output,
            base=base, fit=fit,
        )  # fmt: skip

    def measured(
        self, method: str, tasks: list[Task], teachers: list[Teacher], samples: int, seed: int
    ) -> dict[str, Any]:
        """One method at one number of samples: a row of the metrics."""
        given, held = zip(*(_samples(task, samples, self.held_out) for task in tasks), strict=True)
        inputs: Sequence[Inputs] = given
        if self.augmentation.made:
            inputs = [
                self.network.augmented(x, self.augmentation, 1000 * seed + number) for number, x in enumerate(given)
            ]
        if method == MULTITASK:
            joint = self.jointly_trained(tasks, seed)
            outcome = Outcome(joint, trained=numbers_in(joint))
        else:
            base = self.base(tasks, seed) if MERGE_METHODS[method].base else None
            outcome = merge(method, teachers, inputs, held, self.setting(seed, base))
        scores = evaluate(outcome.model, {t.name: (t.test, t.test_labels) for t in tasks})
        return {
            "method": method, "samples": samples, "seed": seed, **scores.to_dict(), "trained": outcome.trained,
            "parameters": numbers_in(outcome.model), "cpu_seconds": round(outcome.seconds, 3),
            "learning_rate": outcome.learning_rate, "held_out_loss": outcome.held_out,
            "difference": outcome.difference, "layers": outcome.layers,
            "losses": [round(x, 6) for x in outcome.losses[:: max(1, len(outcome.losses) // 100)]],
        }  # fmt: skip

    def _metrics(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for method in self.methods:
            for n in self.samples:
                found = [r for r in rows if r["method"] == method and r["samples"] == n]
                cell = {k: found[0][k] for k in ("trained", "parameters")}
                cell["cpu_seconds"] = _mean([r["cpu_seconds"] for r in found])
                for key in ("per_task", "joint"):
                    values = [r[key] for r in found]
                    cell[key] = _mean(values)
                    cell[f"{key}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
                table.setdefault(method, {})[str(n)] = cell
        return {
            "seeds": self.seeds, "samples": self.samples, "methods": table, "tasks": list(rows[0]["tasks"]),
            "rows": rows,
        }  # fmt: skip

    def page(self, folder: RunFolder, metrics: dict[str, Any]) -> Path:
        from coset.weights.merging.pages import write_merging_page

        return write_merging_page(self, folder, metrics)

    def summary(self, metrics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """A row a method: per-task and joint accuracy at every number of samples, and what was trained."""
        columns = ["method"]
        for n in metrics["samples"]:
            columns += [f"per task, {n}", f"joint, {n}"]
        rows = []
        for method, cells in metrics["methods"].items():
            row = [method]
            for n in metrics["samples"]:
                cell = cells[str(n)]
                row += [f"{100 * cell[k]:.1f} ± {100 * cell[f'{k}_deviation']:.1f}" for k in ("per_task", "joint")]
            last = cells[str(metrics["samples"][-1])]
            sizes = [f"{last['parameters']:,}", f"{last['trained']:,}" if last["trained"] else ""]
            rows.append([*row, *sizes, f"{last['cpu_seconds']:.1f}"])
        return [*columns, "parameters", "trained", "CPU s"], rows


def _samples(task: Task, samples: int, held_out: int) -> tuple[Inputs, Inputs]:
    if count_samples(task.train) < samples + held_out:
        raise CosetError(f"{task.name} has {count_samples(task.train)} samples, {samples} + {held_out} are asked for")
    return take(task.train, slice(0, samples)), take(task.train, slice(samples, samples + held_out))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
