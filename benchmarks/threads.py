"""Whether a run's numbers depend on threads and loading processes, and what it costs that they do not.

    python benchmarks/threads.py [RECIPE ...] [--epochs 2] [--threads 1 2 4] [--workers 0 2] [--repeats 1] [--json FILE]
    python benchmarks/threads.py --kinds [CASE ...] [--threads 1 2 8]

Every recipe is run by each number of threads (OMP_NUM_THREADS) and of processes that load batches, and the digests of
its predictions and of its metrics (without clocks and versions) are compared. By default PyTorch's own operations
have one thread and our kernels all of them; beside it stands ``threads=N``, which gives PyTorch's operations
N as well: its numbers may differ, and its time is what the default costs. Seconds are those of the epochs, by
history.csv: of the clock and of the processors, the smallest of the repeats; runs that are compared take turns.

With ``--kinds`` the small runs of ``tests/golden/cases.yaml``, among which is every kind, are run by each number of
threads: whether all numbers that they report are equal, and how many are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

RECIPES = (
    "subgraphormer/freesolv", "gnn-sswl-plus/freesolv", "csgnn/freesolv", "epnn/freesolv", "gin/freesolv",
    "granola/mutag", "grit/freesolv", "smcn/freesolv",
)  # fmt: skip
CLOCKS = ("seconds", "cpu_seconds", "versions", "machine")
LIBRARIES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Setting(NamedTuple):
    """How a recipe is run; ``everywhere``: PyTorch's operations have all threads as well."""

    threads: int
    workers: int
    everywhere: bool = False


class Result(NamedTuple):
    """Of a run: a digest of its numbers, and the seconds of its epochs."""

    digest: str
    seconds: float
    cpu_seconds: float


def run(recipes: list[str], setting: Setting, epochs: int, folder: Path) -> dict[str, Result]:
    """Run recipes one after another in a process with these threads; the commands are those of a terminal."""
    common = [f"training.epochs={epochs}", f"training.workers={setting.workers}", "--quiet"]
    common += [f"threads={setting.threads}"] * setting.everywhere
    lines = [["run", recipe, *common, "--output", str(folder / str(n))] for n, recipe in enumerate(recipes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(setting.threads)}
    for name in LIBRARIES:
        environment.pop(name, None)
    command = [sys.executable, "-c", CHILD, json.dumps(lines)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return {recipe: result_of(folder / str(n)) for n, recipe in enumerate(recipes)}


CHILD = """
import json, sys
from coset.cli import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["coset", *line]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""


def result_of(folder: Path) -> Result:
    """The numbers of a finished run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    kept = json.dumps({key: value for key, value in metrics.items() if key not in CLOCKS}, sort_keys=True)
    digest = hashlib.sha256(kept.encode() + (folder / "predictions.csv").read_bytes()).hexdigest()[:12]
    last = pd.read_csv(folder / "history.csv").iloc[-1]
    return Result(digest, float(last["seconds"]), float(last["cpu_seconds"]))


def measured(
    recipes: list[str], settings: list[Setting], epochs: int, repeats: int
) -> dict[str, dict[Setting, Result]]:
    """Each recipe's result by setting; of several repeats the least seconds, and all digests if they differ."""
    found: dict[str, dict[Setting, list[Result]]] = {recipe: {s: [] for s in settings} for recipe in recipes}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for number, setting in enumerate(settings):
                for recipe, result in run(recipes, setting, epochs, Path(folder) / f"{repeat}-{number}").items():
                    found[recipe][setting].append(result)
    return {recipe: {s: _least(results) for s, results in each.items()} for recipe, each in found.items()}


def _least(results: list[Result]) -> Result:
    digests = "+".join(sorted({result.digest for result in results}))
    return Result(digests, min(r.seconds for r in results), min(r.cpu_seconds for r in results))


KINDS = """
import json, sys
_, golden, folder, *names = sys.argv
sys.path.insert(0, golden)
import record
known = record.cases()
print(json.dumps([record.run(known[name], record.Path(folder) / name) for name in names]))
"""


def kinds(cases: list[str], threads: list[int]) -> bool:
    """Print for each case how many of its numbers depend on threads; whether none does."""
    golden = Path(__file__).parents[1] / "tests" / "golden"
    sys.path.insert(0, str(golden))
    import record

    known, found, equal = cases or list(record.cases()), {}, True
    for number in threads:
        environment = {**os.environ, "OMP_NUM_THREADS": str(number)}
        for library in LIBRARIES:
            environment.pop(library, None)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", KINDS, str(golden), folder, *known]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            for name, (code, problem, _) in zip(known, json.loads(done.stdout.splitlines()[-1]), strict=True):
                if code:
                    sys.exit(f"{name}: {problem}")
            found[number] = {name: record.numbers(Path(folder) / name) for name in known}
    print(f"| run | numbers | {' | '.join(f'{n} threads' for n in threads[1:])} |")
    print(f"| --- | --- |{' --- |' * len(threads[1:])}")
    for name in known:
        first, told = found[threads[0]][name], []
        for number in threads[1:]:
            lines = record.differences(found[number][name], first, 0.0)
            equal &= not lines
            told.append(f"{len(lines)} differ, such as {lines[0]}" if lines else "equal")
        print(f"| {name} | {len(first)} | {' | '.join(told)} |")
    return equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kinds", nargs="*", help="cases of tests/golden, by default all")
    options = parser.parse_args()
    if options.kinds is not None:
        sys.exit(0 if kinds(options.kinds, options.threads) else 1)
    settings = [Setting(threads, workers) for threads in options.threads for workers in options.workers]
    settings += [Setting(threads, 0, everywhere=True) for threads in options.threads if threads > 1]
    rows, equal = [], True
    found = measured(options.recipes, settings, options.epochs, options.repeats)
    print("| recipe | threads | workers | PyTorch's threads | numbers | seconds | CPU seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for recipe, results in found.items():
        first = results[settings[0]].digest
        for setting, result in results.items():
            same = result.digest == first
            equal &= same or setting.everywhere
            pytorch = setting.threads if setting.everywhere else 1
            told = "equal" if same else "DIFFER" if not setting.everywhere else "differ"
            print(
                f"| {recipe} | {setting.threads} | {setting.workers} | {pytorch} | {told} | {result.seconds:.1f} | "
                f"{result.cpu_seconds:.1f} |",
            )
            rows.append({"recipe": recipe, **setting._asdict(), **result._asdict(), "equal": same})
    if options.json is not None:
        options.json.write_text(json.dumps({"epochs": options.epochs, "rows": rows}, indent=1) + "\n")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
