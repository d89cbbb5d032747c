"""Cost against size, of every system: CPU seconds and memory of an operation while its input doubles.

    python benchmarks/growth.py [--systems EPNN SMCN] [--file benchmarks/results/growth.jsonl]   # what is not there yet
    python benchmarks/growth.py --draw docs/pictures/growth.svg                                  # from the file
    python benchmarks/growth.py --table                                                          # the same, Markdown

Each size is measured in a process of its own, on one thread, where the smallest has been run before: least CPU seconds
of three calls after a first one (of one, if that took 5 s), and how far the first call raised the peak of resident
memory. What is measured, and the exponents that its mathematics gives, are in ``growth_cases.py``; exponents found are
slopes over the three largest sizes, log against log, of memory only above 1 MB. A line of JSON each, appended as it
ends; with ``--draw`` or ``--table`` nothing is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # settled when libraries are loaded
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"

import torch

from coset.reports.figures import COLOURS
from growth_cases import CASES, Case, Operation

RESULTS = Path(__file__).parent / "results" / "growth.jsonl"
LONG = 5.0  # CPU seconds of a call that is repeated once only
FITTED = 3  # sizes
LEAST_MB = 1.0  # below it what the allocator keeps hides what an operation takes
Row = dict[str, Any]


def measure(case: Case, size: int) -> Row:
    """One size, in this process."""
    case.build(case.sizes[0])()  # libraries are loaded, kernels compiled
    operation = case.build(size)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before = resident("VmRSS")
    first = cpu_seconds(operation)
    megabytes = resident("VmHWM") - before
    least = min(cpu_seconds(operation) for _ in range(1 if first > LONG else 3))
    row = {"system": case.system, "what": case.what, "size": size, "unit": case.unit}
    row |= {"cpu_s": round(least, 5), "mb": round(megabytes, 2)}
    return row | {"cpu": processor(), "torch": torch.__version__}


def cpu_seconds(operation: Operation) -> float:
    started = time.process_time()
    operation()
    return time.process_time() - started


def resident(key: str) -> float:
    """MB of resident memory: ``VmRSS`` now, ``VmHWM`` at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def run(cases: list[Case], file: Path) -> None:
    """Measure what the file does not have, each size in a process that inherits libraries, and nothing else large."""
    file.parent.mkdir(parents=True, exist_ok=True)
    known = {(*key_of(row), row["size"]) for row in rows_of(file)}
    for case in cases:
        missing = [size for size in case.sizes if (*case.key, size) not in known]
        if missing:
            case.build(case.sizes[0])()  # libraries are loaded here once for all
        for size in missing:
            in_child(partial(keep, case, size, file))


def keep(case: Case, size: int, file: Path) -> None:
    row = measure(case, size)
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def in_child(function: Callable[[], None]) -> None:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"a measurement ended with exit code {process.exitcode}; what is done is kept")


def rows_of(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def key_of(row: Row) -> tuple[str, str]:
    return row["system"], row["what"]


def line_of(case: Case, rows: list[Row]) -> list[Row]:
    """Rows of a case by size."""
    return sorted((row for row in rows if key_of(row) == case.key), key=lambda row: row["size"])


def exponent(line: list[Row], quantity: str) -> float | None:
    """Slope of a quantity over the largest sizes, by least squares; none if they are too few, or it is too small."""
    last = line[-FITTED:]
    if len(last) < FITTED or (quantity == "mb" and min(row["mb"] for row in last) < LEAST_MB):
        return None
    x, y = ([math.log(row[key]) for row in last] for key in ("size", quantity))
    mean_x, mean_y = sum(x) / FITTED, sum(y) / FITTED
    squares = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / squares


def shown(found: float | None) -> str:
    return "–" if found is None else f"{found:.2f}"


def table(rows: list[Row]) -> str:
    """A row a case, as Markdown."""
    head = ("system", "operation", "sizes", "CPU s", "MB", "time ^", "theory", "memory ^", "theory", "by theory")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for case in CASES:
        line = line_of(case, rows)
        if not line:
            continue
        last = line[-1]
        sizes = f"{case.unit}, {line[0]['size']:,} to {last['size']:,}"
        cells = [case.system, case.what, sizes, f"{last['cpu_s']:.2g}", f"{last['mb']:,.0f}"]
        cells += [shown(exponent(line, "cpu_s")), f"{case.time:g}", shown(exponent(line, "mb")), f"{case.memory:g}"]
        lines.append(f"| {' | '.join([*cells, case.because])} |")
    machines = sorted({f"{row['cpu']}, PyTorch {row['torch']}" for row in rows})
    return "\n".join([*lines, "", "; ".join(machines) + "."])


WIDE, COLUMNS, LEFT, ACROSS, DECADES = 720, 3, 46, 184, 3.1
"""Of the picture; panels in a row; of a plot: room for its labels, its width, and powers of ten across."""
TALL, TOP, GAP, BELOW = 26, 54, 10, 36
"""Of a plot: pixels a power of ten upwards; above, between and below the two of a panel."""
GRID, RULE = "#e4e4e4", "#999"


class Scale(NamedTuple):
    """Logarithmic, upwards: the powers of ten where it begins and ends, and what is written at those between."""

    low: int
    high: float
    words: tuple[str, ...]

    @property
    def height(self) -> float:
        return TALL * (self.high - self.low)

    def up(self, value: float) -> float:
        """Pixels from the top."""
        return self.height - TALL * (math.log10(value) - self.low)


SCALES = {
    "cpu_s": Scale(-3, 1.1, ("1 ms", "10 ms", "0.1 s", "1 s", "10 s")),
    "mb": Scale(0, 3.4, ("1 MB", "10 MB", "100 MB", "1 GB")),
}
HEIGHT = TOP + GAP + BELOW + sum(scale.height for scale in SCALES.values())


def picture(rows: list[Row]) -> str:
    """SVG of a panel a system: seconds above, memory below, dashed what the theory says back from the largest size."""
    systems = list(dict.fromkeys(case.system for case in CASES if line_of(case, rows)))
    panels = []
    for k, system in enumerate(systems):
        place = f"{WIDE / COLUMNS * (k % COLUMNS):.0f},{HEIGHT * (k // COLUMNS):.0f}"
        panels.append(f'<g transform="translate({place})">{"".join(panel(system, rows))}</g>')
    tall = f"{HEIGHT * math.ceil(len(systems) / COLUMNS):.0f}"
    whole = f'width="{WIDE}" height="{tall}"'
    clips = (
        f'<clipPath id="{name}"><rect width="{ACROSS}" height="{scale.height:.0f}"/></clipPath>'
        for name, scale in SCALES.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {tall}" {whole} font-family="sans-serif" '
        f'font-size="11.5">'
        f'<rect {whole} fill="white"/><defs>{"".join(clips)}</defs>{"".join(panels)}</svg>\n'
    )


def panel(system: str, rows: list[Row]) -> Iterator[str]:
    """Title, a line a case with its exponents in time, both plots, units."""
    lines = {case: line for case in CASES if case.system == system and (line := line_of(case, rows))}
    sizes = [math.log10(row["size"]) for line in lines.values() for row in line]
    start = (min(sizes) + max(sizes) - DECADES) / 2  # as many powers of ten in every panel: slopes can be compared
    yield f'<text x="{LEFT}" y="18" font-weight="bold" font-size="13">{system}</text>'
    for k, (case, line) in enumerate(lines.items()):
        said = f"{case.what}: {shown(exponent(line, 'cpu_s'))} ({case.time:g})"
        yield f'<text x="{LEFT}" y="{34 + 14 * k}" fill="{COLOURS[k]}">&#9679; {said}</text>'
    down = float(TOP)
    for quantity, scale in SCALES.items():
        yield f'<g transform="translate({LEFT},{down:.1f})">{"".join(plot(quantity, lines, start))}</g>'
        down += scale.height + GAP
    for power in range(math.ceil(start), math.floor(start + DECADES) + 1):
        x = LEFT + across(power, start)
        yield f'<text x="{x:.0f}" y="{down + 3:.0f}" text-anchor="middle" font-size="10.5">{10**power:,}</text>'
    units = list(dict.fromkeys(case.unit for case in lines))
    colours = COLOURS if len(units) > 1 else ("#333",)
    words = ", ".join(f'<tspan fill="{colours[k]}">{unit}</tspan>' for k, unit in enumerate(units))
    yield f'<text x="{LEFT + ACROSS / 2:.0f}" y="{down + 17:.0f}" text-anchor="middle">{words}</text>'


def across(power: float, start: float) -> float:
    """Pixels from the left."""
    return ACROSS * (power - start) / DECADES


def plot(quantity: str, lines: dict[Case, list[Row]], start: float) -> Iterator[str]:
    """One quantity of a panel: powers of ten, and of each case dots, their line, and the theory's."""
    scale = SCALES[quantity]
    for number, word in enumerate(scale.words):
        y = scale.height - TALL * number
        yield f'<path d="M0 {y:.1f}h{ACROSS}" stroke="{GRID}"/>'
        yield f'<text x="-4" y="{y + 4:.0f}" text-anchor="end" font-size="10.5">{word}</text>'
    for power in range(math.ceil(start), math.floor(start + DECADES) + 1):
        yield f'<path d="M{across(power, start):.1f} 0v{scale.height:.0f}" stroke="{GRID}"/>'
    yield f'<rect width="{ACROSS}" height="{scale.height:.1f}" fill="none" stroke="{RULE}"/>'
    for k, (case, line) in enumerate(lines.items()):
        x = [across(math.log10(row["size"]), start) for row in line]
        y = [scale.up(max(row[quantity], 10.0**scale.low)) for row in line]  # what is less lies on the edge
        power, last = (case.time if quantity == "cpu_s" else case.memory), max(line[-1][quantity], 10.0**scale.low)
        first = scale.up(last * (line[0]["size"] / line[-1]["size"]) ** power)
        style = f'fill="none" stroke="{COLOURS[k]}" clip-path="url(#{quantity})"'
        yield f'<path d="M{x[0]:.1f} {first:.1f}L{x[-1]:.1f} {y[-1]:.1f}" {style} stroke-dasharray="3 3"/>'
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        yield f'<polyline points="{points}" {style} stroke-width="1.6"/>'
        for a, b in zip(x, y, strict=True):
            yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{COLOURS[k]}"/>'


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    systems = list(dict.fromkeys(case.system for case in CASES))
    parser.add_argument("--systems", nargs="+", choices=systems, metavar="NAME", default=systems)
    parser.add_argument("--file", type=Path, default=RESULTS, help="where rows are kept")
    parser.add_argument("--draw", type=Path, help="write the figure, and measure nothing")
    parser.add_argument("--table", action="store_true", help="print the table, and measure nothing")
    parser.add_argument("--sizes", type=int, default=6, help="only so many of the smallest of each")
    options = parser.parse_args(arguments)
    if options.draw is not None:
        options.draw.write_text(picture(rows_of(options.file)), encoding="utf-8")
    if options.table:
        print(table(rows_of(options.file)))
    if options.draw is None and not options.table:
        torch.set_num_threads(1)
        chosen = [case for case in CASES if case.system in options.systems]
        run([case._replace(sizes=case.sizes[: options.sizes]) for case in chosen], options.file)


if __name__ == "__main__":
    main()
