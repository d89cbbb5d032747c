"""Pre-processing of many molecules: CPU seconds, peak memory and bytes on disk against their number, and a cost model.

    python benchmarks/shards.py measure TABLE --rows 10000 100000 1000000 --folder FOLDER [--results shards.jsonl]
    python benchmarks/shards.py read FOLDER/shards-1000000
    python benchmarks/shards.py model [--results shards.jsonl] [--hold 1000000] [--machines 10 --cores 64]

``measure`` takes the first rows of a table with a column smiles (or SMILES), and runs ``coset preprocess`` on them in a
process of its own, on one thread, with the structure of the recipe ``csv`` (distances up to 5, 8 product eigenvectors).
One row is written for each size as it ends; a size that was stopped goes on where it was, and its row says how many
graphs its seconds are for. ``read`` opens shards, counts nodes and takes 10,000 graphs in shuffled batches. ``model``
takes seconds = start + graphs * rate from all sizes but the largest (or ``--hold``), holds the prediction against that
one, and says what 100 million molecules would take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

CUT = 3e-6  # CPU seconds a row that cutting a table takes, which one process does (measured on 100,000 rows)
CHILD = """
import json, sys, time
from pathlib import Path
import torch
from coset.graphs.data.sharding import Sharding, preprocess
from coset.graphs.preprocessing import transform_of
torch.set_num_threads(1)
status = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024
before = status()
made = preprocess(Sharding((Path(sys.argv[1]),), transform_of('csv')), Path(sys.argv[2]), quiet=True)
print(json.dumps({**made, 'process_cpu_seconds': round(time.process_time(), 2), 'peak_mb': round(status()),
                  'imports_mb': round(before)}))
"""


def measure(table: Path, sizes: list[int], folder: Path, results: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        rows = folder / f"{size}.csv"
        if not rows.is_file():
            frame = pd.read_csv(table, nrows=size).rename(columns=str.lower)[["smiles"]]
            frame.to_csv(rows, index=False)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", CHILD, str(rows), str(folder / f"shards-{size}")]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        shards = made["shards"]
        made_now = round(made["graphs"] * made["made"] / shards)
        row = {"rows": size, "graphs_made": made_now, "all_cpu_seconds": round(spent, 1), **made}
        row["bytes_a_graph"] = round(made["bytes"] / made["graphs"])
        row["graphs_a_cpu_second"] = round(made_now / max(made["cpu_seconds"], 1e-9))
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def read(folder: Path) -> None:
    from coset.graphs.data.shards import read_shards
    from coset.graphs.fitting.loaders import EpochBatches, Views, loader, node_counts

    def memory() -> dict[str, int]:
        status = Path("/proc/self/status").read_text()
        return {key: int(status.split(f"{key}:")[1].split()[0]) // 1024 for key in ("RssAnon", "RssFile", "VmHWM")}

    print("MB after imports", memory())
    train, began, seen = read_shards(folder).subset("train"), time.process_time(), 0
    count = len(node_counts(train))
    print(f"nodes of {count} graphs counted in {time.process_time() - began:.2f} CPU s", memory())
    batches, began = EpochBatches(count, 128, seed=0, blocks=train.blocks), time.process_time()
    for batch in loader(Views(train, None, 0), batches):
        seen += batch.num_graphs
        if seen >= 10_000:
            break
    print(f"{seen} graphs, {(time.process_time() - began) / seen * 1e6:.0f} microseconds each", memory())


def model(results: Path, hold: int | None, machines: int, cores: int) -> None:
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    held = hold or max(row["rows"] for row in rows)
    seen = [row for row in rows if row["rows"] != held]
    if not seen:
        raise SystemExit(f"{results} has no size but {held}: measure a smaller one to predict it from")
    rate = sum(row["cpu_seconds"] for row in seen) / sum(row["graphs_made"] for row in seen)
    start = sum(row["all_cpu_seconds"] - row["cpu_seconds"] for row in seen) / len(seen)
    print(
        f"seconds = {start:.1f} + graphs * {rate * 1e6:.0f} microseconds, from {[row['graphs_made'] for row in seen]}"
    )
    for row in rows:
        if row["rows"] == held:
            expected, found, count = start + rate * row["graphs_made"], row["all_cpu_seconds"], row["graphs_made"]
            print(
                f"held out, {count} graphs: {expected:.0f} CPU s predicted, {found} found ({found / expected - 1:+.1%})"
            )
    size = 1e8 * max(rows, key=lambda row: row["graphs"])["bytes_a_graph"]
    cut, shared = 1e8 * CUT, 1e8 * rate / (machines * cores)
    print(
        f"100 million molecules like these: {1e8 * rate / 3600:.1f} core hours and {size / 1e9:.0f} GB; on {machines} "
        f"machines of {cores} cores {(cut + shared) / 60:.0f} minutes, {cut / 60:.0f} of them for cutting, if their "
        f"file system takes {size / shared / 1e6:.0f} MB/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("measure")
    first.add_argument("table", type=Path)
    first.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    first.add_argument("--folder", type=Path, required=True)
    third = commands.add_parser("read")
    third.add_argument("folder", type=Path)
    second = commands.add_parser("model")
    second.add_argument("--hold", type=int)
    second.add_argument("--machines", type=int, default=10)
    second.add_argument("--cores", type=int, default=64)
    for command in (first, second, third):
        command.add_argument("--results", type=Path, default=Path("shards.jsonl"))
    options = parser.parse_args()
    if options.command == "measure":
        measure(options.table, options.rows, options.folder, options.results)
    elif options.command == "read":
        read(options.folder)
    else:
        model(options.results, options.hold, options.machines, options.cores)


if __name__ == "__main__":
    main()
