"""Coset beside chemprop at equal CPU: ESOL and FreeSolv, random and scaffold splits, single networks and ensembles.

Run: python benchmarks/chemprop_table.py FOLDER --chemprop PYTHON [--seeds 10] [--members 5] [--budget MINUTES], where
PYTHON is that of another environment with `pip install chemprop==2.2.4`. Every training is a process of its own with
one thread, and leaves a row in FOLDER/rows.jsonl when it is done; the same command goes on where it was stopped.
`python benchmarks/chemprop_table.py FOLDER --show` prints the tables from the rows.

Both train on the same rows: splits are those of the recipe (`data.split_seed=S`), written out for chemprop with a
column of splits. Group S of five members is about random split S and has the seeds 5 S to 5 S + 4; the first is the
single network. A scaffold split has no seed: group S is a network of seed S, and five groups are an ensemble. chemprop
runs as it comes (50 epochs), and once more with as many epochs as cost what ours costs ("equal CPU"): seconds of both
are those of the first three groups, which are therefore run first, and what comes before the first epoch is measured by
a training of 3. CPU seconds are user and system time of the process, imports and all; the tools take turns, so that a
machine that others use is equally slow for them.

With --from RUN ours is trained once more from a network that was trained before (`model.from`), whose own seconds are
not counted: such as of the table that `zinc_properties.py` writes. Differences are of single networks of one split and
seed, with Student's interval of 95 %; where splits differ, with the variance of Nadeau and Bengio (2003) for training
parts that overlap.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from coset.graphs.experiments import GraphRecipe
from coset.runs.recipes import load
from coset.runs.results import RunResults

OURS = {
    "esol": "subgraphormer/esol",
    "freesolv": "subgraphormer/freesolv-tuned",
}
STARTED = "coset, from a run"
SHORT, USUAL = 3, 50  # epochs of chemprop (its warm-up takes 2): to measure its start, and by default
FEW = 3  # groups that are run first
HELD_OUT = 0.1  # share of the test rows, and of those of validation
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        data: ``esol`` or ``freesolv``.
        split: ``random`` or ``scaffold``.
        tool: ``coset``, ``coset, from a run``, ``chemprop`` or ``chemprop, equal CPU``.
        group: Number of the split and of the ensemble.
        member: Number within the ensemble.
    """

    data: str
    split: str
    tool: str
    group: int
    member: int

    @property
    def key(self) -> tuple[Any, ...]:
        return self.data, self.split, self.tool, self.group, self.member

    def seed(self, members: int) -> int:
        return self.group if self.split == "scaffold" else members * self.group + self.member


class Bench:
    """Trains jobs, and keeps their rows.

    Args:
        folder: Where rows, splits and runs are.
        chemprop: Python of chemprop's environment, if it is to be run.
        members: Of an ensemble.
        changes: Of our recipes, e.g. ``training.epochs=40``.
        start: What ``coset, from a run`` has beside: the run to start from, and changes.
    """

    def __init__(self, folder: Path, chemprop: str | None, members: int, changes: list[str], start: list[str]):
        self.folder, self.chemprop, self.members, self.changes = folder, chemprop, members, changes
        self.start = start
        self.file = folder / "rows.jsonl"
        self.rows = [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def done(self, job: Job) -> dict[str, Any] | None:
        return next((row for row in self.rows if key_of(row) == job.key), None)

    def run(self, job: Job) -> None:
        if self.done(job) is not None:
            return
        place = self.folder / "-".join([job.data, job.split, job.tool.replace(", ", "-").replace(" ", "-"),
                                        f"{job.group}.{job.member}"])  # fmt: skip
        epochs = None
        if job.tool.startswith("coset"):
            cpu, predicted, test = self._ours(job, place)
        else:
            epochs = self._equal_epochs(job) if "equal" in job.tool else USUAL
            if "equal" in job.tool and epochs == USUAL and (usual := self.done(replace(job, tool="chemprop"))):
                self._keep(usual | {"tool": job.tool})
                return
            cpu, predicted, test = self._chemprop(job, place, epochs)
        row = {name: getattr(job, name) for name in ("data", "split", "tool", "group", "member")}
        row |= {"seed": job.seed(self.members), "cpu_s": round(cpu, 1), "epochs": epochs, "rmse": rmse(predicted, test)}
        self._keep(row | {"test": [float(f"{value:.6g}") for value in test], "predicted": predicted})

    def _keep(self, row: dict[str, Any]) -> None:
        with self.file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print(json.dumps({name: value for name, value in row.items() if name not in ("test", "predicted")}), flush=True)

    def _recipe(self, job: Job) -> list[str]:
        """Our recipe with its changes."""
        split = [f"data.split={job.split}", f"data.split_seed={job.group}", f"seed={job.seed(self.members)}"]
        return [OURS[job.data], *split, *self.changes, *(self.start if job.tool == STARTED else [])]

    def _ours(self, job: Job, place: Path) -> tuple[float, list[float], list[float]]:
        cpu = timed([sys.executable, "-m", "coset", "run", *self._recipe(job), "--output", str(place), "--quiet"])
        run = RunResults(place)
        test, (name,) = run.predictions["split"] == "test", run.target_names
        found, true = run.values("prediction", name)[test], run.values("target", name)[test]
        return cpu, [float(f"{value:.6g}") for value in found], true.tolist()

    def _chemprop(self, job: Job, place: Path, epochs: int) -> tuple[float, list[float], list[float]]:
        assert self.chemprop is not None
        table = self._splits(job)
        cpu = timed([
            str(Path(self.chemprop).with_name("chemprop")), "train", "--data-path", str(table), "--smiles-columns",
            "smiles", "--target-columns", "y", "--splits-column", "split", "--task-type", "regression", "--epochs",
            str(epochs), "--pytorch-seed", str(job.seed(self.members)), "--output-dir", str(place), "--accelerator",
            "cpu", "--devices", "1",
        ])  # fmt: skip
        (file,) = place.rglob("test_predictions.csv")
        test, predicted = (frame := pd.read_csv(table))[frame["split"] == "test"], pd.read_csv(file)
        if predicted["smiles"].tolist() != test["smiles"].tolist():
            raise RuntimeError(f"{file} has other molecules than the test part of {table}")
        return cpu, [float(f"{value:.6g}") for value in predicted["y"]], test["y"].tolist()

    def _splits(self, job: Job) -> Path:
        """The rows of our recipe with the part that each is in, for chemprop."""
        file = self.folder / f"{job.data}-{job.split}-{job.group}.csv"
        if not file.exists():
            recipe = load(self._recipe(job)[0], self._recipe(job)[1:])
            assert isinstance(recipe, GraphRecipe)
            table = recipe.load()
            frame = pd.DataFrame({"smiles": table.smiles, "y": table.targets[:, 0].tolist(), "split": table.split_of()})
            # The rows of a part stand in the order of the table, as our predictions do.
            frame.to_csv(file, index=False)
        return file

    def _equal_epochs(self, job: Job) -> int:
        """As many as cost what our first trainings on these data did; the usual number if that is within a tenth."""
        ours, usual = (self._seconds(job, tool) for tool in ("coset", "chemprop"))
        timing = Job(job.data, job.split, f"timing {SHORT}", 0, 0)
        if (row := self.done(timing)) is None:
            cpu, _, _ = self._chemprop(timing, self.folder / f"timing-{job.data}-{job.split}-{SHORT}", SHORT)
            row = {name: getattr(timing, name) for name in ("data", "split", "tool", "group", "member")}
            self._keep(row := row | {"cpu_s": round(cpu, 1)})
        each = (usual - row["cpu_s"]) / (USUAL - SHORT)
        epochs = max(SHORT, round((ours - row["cpu_s"]) / each + SHORT))
        return USUAL if abs(epochs - USUAL) <= USUAL / 10 else epochs

    def _seconds(self, job: Job, tool: str) -> float:
        """Mean of the first groups."""
        first = (self.done(Job(job.data, job.split, tool, group, 0)) for group in range(FEW))
        return mean(row["cpu_s"] for row in first if row is not None)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["data"], row["split"], row["tool"], row["group"], row["member"]


def timed(command: list[str]) -> float:
    """User and system seconds of a process.

    Raises:
        RuntimeError: It fails.
    """
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run(command, env=os.environ | THREADS, capture_output=True, text=True)
    after = getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def rmse(predicted: list[float], test: list[float]) -> float:
    return float(np.sqrt(np.mean((np.array(predicted) - np.array(test)) ** 2)))


def jobs(tools: list[str], groups: int, members: int, only: list[str], singles: bool = False) -> Iterator[Job]:
    """Single networks of the first groups, what costs as much, single networks of the other groups, then members of
    ensembles on random splits; split by split, so that a table that was cut off has whole pairs."""
    cells = [("freesolv", "random"), ("esol", "scaffold"), ("esol", "random"), ("freesolv", "scaffold")]
    cells = [cell for cell in cells if not only or "/".join(cell) in only]
    first = range(min(FEW, groups))
    plain = [tool for tool in tools if "equal" not in tool]
    turns = [(group, 0, cells, plain) for group in first]
    turns += [(group, 0, cells, [tool for tool in tools if tool not in plain]) for group in first]
    turns += [(group, 0, cells, tools) for group in range(FEW, groups)]
    drawn = [cell for cell in cells if cell[1] == "random"]
    if not singles:
        turns += [(group, member, drawn, tools) for group in range(groups) for member in range(1, members)]
    for group, member, some, used in turns:
        for (data, split), tool in product(some, used):
            yield Job(data, split, tool, group, member)


def show(rows: list[dict[str, Any]], members: int) -> None:
    """A row a data set, split and tool: single networks, ensembles that are whole, CPU seconds; then differences."""
    rows = [row for row in rows if not row["tool"].startswith("timing")]
    print("| data | split | tool | single: mean ± sd (n) | CPU s | ensemble: mean ± sd (n) | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    tools = list(dict.fromkeys(row["tool"] for row in rows))
    cells = sorted({(row["data"], row["split"]) for row in rows})
    for cell, tool in product(cells, tools):
        own = [row for row in rows if (row["data"], row["split"], row["tool"]) == (*cell, tool)]
        if not own:
            continue
        single = [row for row in own if row["member"] == 0]
        whole = ensembles(own, members)
        joint = [joint_rmse(group) for group in whole]
        cpu = mean(sum(row["cpu_s"] for row in group) for group in whole) if whole else None
        epochs = f" ({own[0]['epochs']} epochs)" if own[0]["epochs"] else ""
        print(f"| {cell[0]} | {cell[1]} | {tool}{epochs} | {spread([row['rmse'] for row in single])} | "
              f"{mean(row['cpu_s'] for row in single):.0f} | {spread(joint)} | "
              f"{'' if cpu is None else f'{cpu:.0f}'} |")  # fmt: skip
    print(
        "\n| data | split | RMSE of | minus that of | mean difference | 95 % interval | pairs | of ensembles | pairs |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for cell, (one, other) in product(cells, combinations(tools, 2)):
        found = difference(rows, cell, one, other)
        if found is not None:
            joint = difference(rows, cell, one, other, members) if cell[1] == "random" else None
            print(f"| {cell[0]} | {cell[1]} | {one} | {other} | {found[0]:+.3f} | {interval(found)} | {found[2]} | "
                  f"{' | ' if joint is None else f'{joint[0]:+.3f} ({interval(joint)}) | {joint[2]}'} |")  # fmt: skip


def interval(found: tuple[float, float, int]) -> str:
    middle, half, _ = found
    return f"{middle - half:+.3f} to {middle + half:+.3f}"


def ensembles(rows: list[dict[str, Any]], members: int) -> list[list[dict[str, Any]]]:
    """Those that are whole: all members of one random split, or so many seeds of the one scaffold split."""
    if rows[0]["split"] == "scaffold":
        seeds = sorted((row for row in rows if row["member"] == 0), key=lambda row: row["group"])
        groups = [seeds[start : start + members] for start in range(0, len(seeds), members)]
    else:
        groups = [[row for row in rows if row["group"] == group] for group in sorted({row["group"] for row in rows})]
    return [group for group in groups if len(group) == members]


def difference(
    rows: list[dict[str, Any]], cell: tuple[str, str], one: str, other: str, members: int | None = None
) -> tuple[float, float, int] | None:
    """Mean difference of two tools' single networks (or ensembles of so many members on one random split), half its
    interval, and the number of pairs; if there are two."""
    first, second = (errors(rows, cell, tool, members) for tool in (one, other))
    groups = [group for group in first if group in second]
    if len(groups) < 2:
        return None
    found = np.array([first[group] - second[group] for group in groups])
    overlap = HELD_OUT / (1 - 2 * HELD_OUT) if cell[1] == "random" else 0.0
    half = float(student.ppf(0.975, len(found) - 1)) * float(found.std(ddof=1)) * (1 / len(found) + overlap) ** 0.5
    return float(found.mean()), half, len(found)


def errors(rows: list[dict[str, Any]], cell: tuple[str, str], tool: str, members: int | None) -> dict[int, float]:
    """RMSE of a tool on each split: of its first network, or of the mean of so many."""
    own = [row for row in rows if (row["data"], row["split"], row["tool"]) == (*cell, tool)]
    if members is None:
        return {row["group"]: row["rmse"] for row in own if row["member"] == 0}
    return {group[0]["group"]: joint_rmse(group) for group in (ensembles(own, members) if own else [])}


def joint_rmse(group: list[dict[str, Any]]) -> float:
    """Of the mean prediction of several networks."""
    return rmse(np.mean([row["predicted"] for row in group], axis=0).tolist(), group[0]["test"])


def spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "") + f" ({len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where rows, splits and runs are kept")
    parser.add_argument("--chemprop", help="python of an environment with chemprop; without it only ours is run")
    parser.add_argument("--seeds", type=int, default=10, help="groups: splits, or ensembles")
    parser.add_argument("--members", type=int, default=5, help="of an ensemble")
    parser.add_argument(
        "--singles", action="store_true", help="no ensembles on random splits, each of which takes more"
    )
    parser.add_argument("--only", nargs="+", default=[], help="such as esol/scaffold")
    parser.add_argument("--tools", nargs="+", default=[], help="some of the tools alone, such as chemprop")
    parser.add_argument("--budget", type=float, help="minutes after which no further training begins")
    parser.add_argument("--changes", nargs="+", default=[], help="of our recipes, key=value")
    parser.add_argument("--from", dest="start", help="a run of ours on other molecules, to start from")
    parser.add_argument("--from-changes", nargs="+", default=[], help="of our recipes where they start from it")
    parser.add_argument("--show", action="store_true", help="print the table, train nothing")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    start = [f"model.from={options.start}", *options.from_changes] if options.start else []
    bench = Bench(options.folder, options.chemprop, options.members, options.changes, start)
    if options.show:
        show(bench.rows, options.members)
        return
    tools = ["coset", *([STARTED] if options.start else [])]
    tools += ["chemprop", "chemprop, equal CPU"] if options.chemprop else []
    tools = [tool for tool in tools if not options.tools or tool in options.tools]
    began = time.monotonic()
    for job in jobs(tools, options.seeds, options.members, options.only, options.singles):
        if options.budget is not None and time.monotonic() - began > 60 * options.budget:
            break
        bench.run(job)
    show(bench.rows, options.members)


if __name__ == "__main__":
    main()
