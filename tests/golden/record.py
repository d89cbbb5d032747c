"""Short runs through the command line, and the numbers that they leave: ``python tests/golden/record.py [NAME ...]``.

Without names all files of this maker of processors under ``metrics/`` are written again: products of matrices are
other instructions on others' processors, and last digits differ. Numbers depend on how many threads share a sum, so
runs take place in a process of their own with one thread, whatever the caller has set.
"""

import csv
import json
import math
import multiprocessing
import os
import platform
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
TABLES = ("predictions.csv", "labels.csv")
ROWS = 5  # of a table that are kept
NOT_RESULTS = ("seconds", "versions", "machine", "about")  # keys and columns that hold one of these words


def cases() -> dict[str, dict[str, Any]]:
    """All cases by name."""
    return yaml.safe_load((HERE / "cases.yaml").read_text(encoding="utf-8"))


def place(name: str) -> Path:
    """The file of the numbers of a case."""
    return HERE / "metrics" / maker() / f"{name}.json"


def maker() -> str:
    """Of the processor: ``AuthenticAMD``, ``GenuineIntel``, or what the system says otherwise."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), platform.processor())


@contextmanager
def one_thread() -> Iterator[Executor]:
    """A process with one thread for :func:`run`; a new one, since libraries read these settings when loaded."""
    before = {key: os.environ.get(key) for key in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(machine).result()  # started while the settings hold
            yield pool
    finally:
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})


def run(case: dict[str, Any], folder: Path) -> tuple[int, str, float]:
    """``coset run`` of a case into a folder: exit code, the last line of standard error, CPU seconds."""
    sys.argv = ["coset", "run", case["recipe"], *case["overrides"], "--output", str(folder), "--quiet"]
    began, problems, code = time.process_time(), StringIO(), 0
    with redirect_stdout(StringIO()), redirect_stderr(problems):
        try:
            runpy.run_module("coset", run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
    lines = problems.getvalue().strip().splitlines()
    return code, lines[-1] if lines else "", time.process_time() - began


def machine() -> dict[str, str]:
    """What decides the last digits, beside the number of threads."""
    import numpy
    import torch

    return {
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def numbers(folder: Path) -> dict[str, float]:
    """The numbers of ``metrics.json`` by their place in it, and those of the first rows of tables.

    Times, versions and the machine are left out.
    """
    found = dict(_leaves("", json.loads((folder / "metrics.json").read_text(encoding="utf-8"))))
    for name in TABLES:
        if (folder / name).is_file():
            with (folder / name).open(encoding="utf-8", newline="") as file:
                rows = [row for row, _ in zip(csv.DictReader(file), range(ROWS))]
            for i, row in enumerate(rows):
                label = f"{name}/{i} {row.get('method', '')}".rstrip()
                found |= {f"{label}/{key}": _number(text) for key, text in row.items() if _is_number(key, text)}
    return found


def differences(found: dict[str, float], kept: dict[str, float], tolerance: float) -> list[str]:
    """A line for each number that is not what it was.

    Args:
        found: Numbers of a run.
        kept: What they were.
        tolerance: Relative. Unless it is 0, numbers of at most 1e-6 are rounding and not compared with each other.
    """
    lines = [f"{key} is missing" for key in kept.keys() - found.keys()]
    lines += [f"{key} is new" for key in found.keys() - kept.keys()]
    for key in kept.keys() & found.keys():
        a, b = found[key], kept[key]
        rounding = tolerance > 0 and max(abs(a), abs(b)) <= 1e-6
        if not (a == b or rounding or math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b))):
            lines.append(f"{key}: {a!r}, was {b!r}")
    return sorted(lines)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not any(word in key for word in NOT_RESULTS):
                yield from _leaves(f"{path}/{key}".lstrip("/"), inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(f"{path}/{i}", inner)
    elif isinstance(value, int | float):
        yield path, float(value)


def _is_number(key: str, text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("True", "False")
    return not any(word in key for word in NOT_RESULTS)


def _number(text: str) -> float:
    return float(text == "True") if text in ("True", "False") else float(text)


def record(names: list[str]) -> None:
    """Run these cases and write down their numbers."""
    known = cases()
    with one_thread() as pool, tempfile.TemporaryDirectory() as folder:
        for name in names or list(known):
            code, problem, seconds = pool.submit(run, known[name], Path(folder) / name).result()
            if code:
                sys.exit(f"{name}: {problem}")
            kept = {"machine": pool.submit(machine).result(), "numbers": numbers(Path(folder) / name)}
            place(name).parent.mkdir(exist_ok=True)
            place(name).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            print(f"{name:30} {seconds:6.1f} CPU s, {len(kept['numbers']):4} numbers")


if __name__ == "__main__":
    record(sys.argv[1:])
