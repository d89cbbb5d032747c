"""Random kills of every long job, and whether what is left in the end equals an undisturbed run.

    python benchmarks/kills.py SERIES [--kills 10] [--seed 0] [--folder FOLDER] [--results kills.jsonl]

A series runs a command of ours undisturbed, then again in another folder, where it sends SIGKILL to a process at a
random moment after there was something new (an epoch, a trial, an adapter, a shard), again and again; every second kill
of the local series takes the driver, which is then started again. A row is written for each kill, and one for the end.

    torchrun     one of two processes that train one model under torchrun
    ray-train    the same under Ray Train
    sweep        a process of a sweep, or its driver
    asha         a process of a sweep with ASHA, or its driver (compared are the trials that both runs finished)
    asha-ray     the driver of the same on Ray
    tpe          the driver of a search by TPE with ASHA, one trial at a time
    zoo          a process that finetunes adapters, or its driver
    preprocess   a process that makes shards, or its driver
    ray-data     a worker of Ray Data that makes shards

With ``--node`` a cluster of two nodes, of one core each, is simulated on this machine (ray.cluster_utils), the command
runs on it with --engine ray, and after the first progress one node is taken away, once: for sweep and preprocess.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd


class Series(NamedTuple):
    """A job that is killed.

    Attributes:
        arguments: Of the command, without ``--output``.
        progress: How much of it there is in a folder.
        result: What must be equal in the end.
        victim: Part of the command line of the processes to kill; empty for the driver alone.
        driver: Whether every second kill takes the driver.
        least: Progress before the first kill, and between two.
    """

    arguments: list[str]
    progress: Callable[[Path], int]
    result: Callable[[Path], object]
    victim: str
    driver: bool
    least: int = 1


def files(pattern: str) -> Callable[[Path], int]:
    return lambda folder: len(list(folder.glob(pattern)))


def epochs(pattern: str) -> Callable[[Path], int]:
    def count(folder: Path) -> int:
        tables = [file.read_text().count("\n") for file in folder.glob(pattern)]
        return sum(lines - 1 for lines in tables if lines)

    return count


def digests(pattern: str) -> Callable[[Path], object]:
    return lambda folder: {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.glob(pattern))}


def run_metrics(folder: Path) -> object:
    found = json.loads((folder / "metrics.json").read_text())
    return {split: found[split] for split in ("train", "val", "test")}


def trials(folder: Path) -> object:
    return {file.parent.name: run_metrics(file.parent) for file in sorted(folder.glob("runs/*/metrics.json"))}


def ranking(folder: Path) -> object:
    rows = json.loads((folder / "metrics.json").read_text())["ranking"]
    return {row["folder"]: {key: row[key] for key in ("state", "epochs", "val", "test")} for row in rows}


def adapters(folder: Path) -> object:
    weights = {
        f.parent.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.glob("adapters/*/*.safetensors")
    }
    return weights, pd.read_csv(folder / "labels.csv").to_dict("list")


def all_series(table: Path) -> dict[str, Series]:
    model = ["gin/freesolv", "data.fractions=[0.4,0.1,0.5]", "model.norm=identity", "model.width=16", "model.layers=2"]
    model += ["training.schedule=constant", "training.batch_size=64"]
    train = ["run", *model, "training.epochs=60", "--workers", "2", "--retries", "50", "--quiet"]
    tried = ["sweep", *model, "training.epochs=10", "model.width=8,12,16", "--seeds", "4", "--retries", "50", "--quiet"]
    asha = ["sweep", *model, "training.epochs=12", "training.learning_rate=loguniform(1e-4,1e-2)", "--samples", "12"]
    asha += ["--seeds", "1", "--asha", "--quiet"]
    tpe = [*asha, "--search", "tpe"]
    zoo = ["lora", "zoo", "lol/digits-zoo", "adapters=240", "--workers", "2", "--retries", "50", "--quiet"]
    shards = ["preprocess", str(table), "--shard-rows", "200", "--workers", "2", "--retries", "50", "--quiet"]
    history, trial = epochs("history.csv"), files("runs/*/metrics.json")
    return {
        "torchrun": Series([*train, "--engine", "torchrun"], history, run_metrics, "-u\0-m\0coset", False, 3),
        "ray-train": Series([*train, "--engine", "ray"], history, run_metrics, "RayTrainWorker", False, 3),
        "sweep": Series([*tried, "--workers", "2"], trial, trials, "spawn_main", True),
        "asha": Series([*asha, "--workers", "2"], epochs("runs/*/history.csv"), trials, "spawn_main", True, 4),
        "asha-ray": Series(
            [*asha, "--workers", "2", "--engine", "ray"], epochs("runs/*/history.csv"), trials, "", True, 4
        ),
        "tpe": Series(tpe, epochs("runs/*/history.csv"), ranking, "", True, 4),
        "zoo": Series(zoo, files("adapters/*/labels.json"), adapters, "spawn_main", True, 8),
        "preprocess": Series(shards, files("*.arrow"), digests("*.arrow"), "spawn_main", True, 3),
        "ray-data": Series([*shards, "--engine", "ray"], files("*.arrow"), digests("*.arrow"), "Map(one)", False, 3),
    }


def told(folder: Path) -> Path:
    """Where what a command prints goes; a pipe that nobody empties would stop it once it is full."""
    return folder.with_name(f"{folder.name}.log")


def start(series: Series, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "coset", *series.arguments, "--output", str(folder)]
    with told(folder).open("a") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)


def below(process: int) -> dict[int, str]:
    """The processes that a process has started, and those have: their command lines."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(entry.name)] = (entry / "cmdline").read_text(errors="replace")
        except (OSError, ValueError):
            continue
    found, added = {process}, True
    while added:
        added = {child for child, parent in parents.items() if parent in found} - found
        found |= added
    return {each: lines[each] for each in found - {process} if each in lines}


def disturb(series: Series, folder: Path, kills: int, generator: random.Random, write: Callable[..., None]) -> int:
    """Run to the end with so many kills; how many there were."""
    process, done, seen = start(series, folder), 0, 0
    while True:
        while process.poll() is None and (done == kills or series.progress(folder) < seen + series.least):
            time.sleep(0.02)
        if process.poll() is not None:
            if process.returncode:
                raise SystemExit(f"the command failed: see {told(folder)}")
            return done
        time.sleep(generator.uniform(0, 1.0))
        takes_driver = series.driver and (done % 2 == 1 or not series.victim)
        victims = [p for p, line in below(process.pid).items() if series.victim and series.victim in line]
        if not takes_driver and not victims:
            continue
        victim = process.pid if takes_driver else generator.choice(sorted(victims))
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
        done, seen = done + 1, series.progress(folder)
        write(kill=done, took="driver" if takes_driver else "worker", progress=seen)
        if takes_driver:
            process.wait()
            process = start(series, folder)


def lose_a_node(series: Series, folder: Path, write: Callable[..., None]) -> int:
    """Run on a simulated cluster, one node of which is taken away."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    lost = cluster.add_node(**small)
    os.environ["RAY_ADDRESS"] = cluster.address
    process = start(series, folder)
    while process.poll() is None and series.progress(folder) < series.least:
        time.sleep(0.02)
    write(kill=1, took="node", progress=series.progress(folder))
    cluster.remove_node(lost, allow_graceful=False)
    if process.wait():
        raise SystemExit(f"the command failed: see {told(folder)}")
    cluster.shutdown()
    return 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--node", action="store_true", help="take away a node of a simulated cluster instead")
    parser.add_argument("--folder", type=Path, default=Path("kills"))
    parser.add_argument("--table", type=Path, default=Path("molecules.csv"), help="CSV with smiles, for shards")
    parser.add_argument("--results", type=Path, default=Path("kills.jsonl"))
    options = parser.parse_args()
    series = all_series(options.table)[options.series]
    options.folder.mkdir(parents=True, exist_ok=True)
    name = f"{options.series} on a cluster" if options.node else options.series

    def write(**row: object) -> None:
        line = json.dumps({"series": name, **row})
        print(line, flush=True)
        with options.results.open("a") as file:
            file.write(line + "\n")

    calm = options.folder / f"{options.series}-undisturbed"
    if not calm.exists() and start(series, calm).wait():
        raise SystemExit("the undisturbed run failed")
    if options.node:
        folder = options.folder / f"{options.series}-node"
        series = series._replace(arguments=[*series.arguments, "--engine", "ray"])
        done = lose_a_node(series, folder, write)
    else:
        folder = options.folder / f"{options.series}-{options.seed}"
        done = disturb(series, folder, options.kills, random.Random(options.seed), write)
    expected, found = series.result(calm), series.result(folder)
    if options.series.startswith("asha"):  # which trials are stopped depends on the order in which they come along
        both = expected.keys() & found.keys()
        expected, found = {k: expected[k] for k in both}, {k: found[k] for k in both}
    write(kills=done, compared=len(found), equal=expected == found)


if __name__ == "__main__":
    main()
