"""Tables of molecules of any size to shards with the structure that a network needs, in bounded memory.

The rows are first cut into parts of equally many, in about three seconds a million; then every part becomes a shard
of its own, here, on processes or on Ray Data, in any order. A shard that is there is finished, so the same command goes
on where an earlier one was stopped, and whoever makes the shards, they come out byte by byte the same.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch_geometric.transforms import BaseTransform
from typing_extensions import TypedDict

from coset.core.errors import CosetError
from coset.core.files import LOCK, claimed, holds_something, make_folder, write_json, write_text
from coset.core.outside import check_column, read_table, read_text, read_tree, table_chunks
from coset.graphs.data.compounds import feature_sizes
from coset.graphs.data.datasets import listed, parse_rows
from coset.graphs.data.shards import MANIFEST, Shard, read_manifest, write_shard
from coset.graphs.data.targets import target_columns
from coset.graphs.transforms import precompute
from coset.runs.launch.jobs import ENGINES, Job, over_ray_data, run_jobs
from coset.runs.terminal import bars

PLAN, PARTS, ROWS = "plan.json", "parts.json", "rows"
_SHARE = 20  # shards a process makes before another takes over: what its start costs, and what a progress bar shows


class _Part(TypedDict):
    """Rows of one file that become one shard."""

    file: str
    rows: int


@dataclass(frozen=True)
class Sharding:
    """What shards are made of.

    Attributes:
        files: Tables of molecules with equal columns.
        transform: What is added to each graph.
        smiles: Column of SMILES.
        targets: Column or columns to predict; ``"a,b"`` means two.
        id: Column of names; row numbers otherwise.
        shard_rows: Rows of a shard; memory grows with it, by about 60 kB a row.
    """

    files: tuple[Path, ...]
    transform: BaseTransform
    smiles: str = "smiles"
    targets: str | tuple[str, ...] = ()
    id: str | None = None
    shard_rows: int = 5000

    def plan(self) -> dict[str, Any]:
        """Everything that the shards depend on.

        Raises:
            CosetError: A file or a column is missing.
        """
        names: list[str] = []
        for file in self.files:
            with closing(table_chunks(file, 1)) as chunks:
                columns = list(next(chunks).columns)
            names = target_columns(self.targets, columns)
            for column in [self.smiles, *names, *([self.id] if self.id else [])]:
                check_column(columns, column, file)
        return {
            "files": [_fingerprint(file) for file in self.files], "smiles": self.smiles, "targets": names,
            "id": self.id, "transform": repr(self.transform), "shard_rows": self.shard_rows,
        }  # fmt: skip


def preprocess(
    sharding: Sharding,
    folder: Path,
    *,
    skip_bad_rows: bool = False,
    engine: str = "local",
    workers: int = 1,
    retries: int = 2,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make the shards that are missing, and then ``shards.json``.

    Args:
        sharding: What of.
        folder: Where to.
        skip_bad_rows: Leave out rows whose SMILES do not parse; their numbers are kept in the notes.
        engine: ``local`` (with one worker in this process, else a process a worker) or ``ray`` (Ray Data).
        workers: Shards at a time, on one thread each.
        retries: How often work is started again whose process died.
        quiet: No progress bar.

    Returns:
        ``graphs``, ``shards``, ``made`` (shards that were not there), ``cpu_seconds`` of making them, ``seconds``,
        ``bytes`` on disk and ``notes``.

    Raises:
        CosetError: The folder holds something else, a row is wrong (what other rows became is kept), or work failed.
    """
    started = time.monotonic()
    if engine not in ENGINES:
        raise CosetError(f"engine {engine!r}: choose {' or '.join(ENGINES)}")
    if sharding.shard_rows < 1:
        raise CosetError(f"shard_rows={sharding.shard_rows} must be at least 1")
    plan = sharding.plan()
    if not (folder / PLAN).is_file() and holds_something(folder):
        raise CosetError(f"{folder} is not empty and holds no shards; choose another folder with --output")
    make_folder(folder)
    with claimed(folder / LOCK, folder):
        _settle(folder, plan)
        return _preprocess(sharding, folder, plan, skip_bad_rows, engine, workers, retries, quiet, started)


def _preprocess(
    sharding: Sharding, folder: Path, plan: dict[str, Any], skip_bad_rows: bool, engine: str, workers: int,
    retries: int, quiet: bool, started: float,
) -> dict[str, Any]:  # fmt: skip
    parts = _cut(sharding, plan, folder)
    missing = [number for number in range(len(parts)) if not _shard(folder, number).is_file()]
    settings = (str(folder.absolute()), sharding, tuple(plan["targets"]), skip_bad_rows)
    shares: Iterator[tuple[tuple[float, list[str]], int]]
    if engine == "local" and workers == 1:
        shares = ((make_shards(*settings, [number]), 1) for number in missing)
    else:
        shares = _shared_out(settings, missing, engine, workers, retries)
    seconds = 0.0
    wrong: list[str] = []
    with bars(quiet) as bar:
        shown = bar.add_task("shards", total=len(missing))
        for (cpu_seconds, errors), done in shares:
            seconds, wrong = seconds + cpu_seconds, wrong + errors
            bar.advance(shown, done)
    if wrong:
        more = f" ({len(wrong) - 1} more of {len(parts)} shards failed)" if len(wrong) > 1 else ""
        raise CosetError(f"{wrong[0]}{more}; finished shards are kept in {folder}")
    about = _finish(folder, plan, parts)
    return {
        "graphs": sum(count for _, count in about["shards"]), "shards": len(parts), "made": len(missing),
        "cpu_seconds": round(seconds, 2), "seconds": round(time.monotonic() - started, 2), "notes": about["notes"],
        "bytes": sum(_shard(folder, number).stat().st_size for number in range(len(parts))),
    }  # fmt: skip


def make_shards(
    folder: str, sharding: Sharding, targets: Sequence[str], skip_bad_rows: bool, numbers: Sequence[int]
) -> tuple[float, list[str]]:
    """Make these shards, those that are not there; CPU seconds, and what was wrong with which rows."""
    threads, errors, began = torch.get_num_threads(), [], time.process_time()
    torch.set_num_threads(1)
    try:
        parts = read_tree(Path(folder) / PARTS, list[_Part])
        for number in numbers:
            if _shard(Path(folder), number).is_file():
                continue
            try:
                _make_shard(Path(folder), sharding, targets, skip_bad_rows, number, parts[number]["file"])
            except CosetError as error:
                errors.append(str(error).replace("skip_bad_rows=true", "--skip-bad-rows"))
    finally:
        torch.set_num_threads(threads)
    return time.process_time() - began, errors


def _make_shard(
    folder: Path, sharding: Sharding, targets: Sequence[str], skip_bad_rows: bool, number: int, file: str
) -> None:
    frame = read_table(_part(folder, number), missing=frozenset({""})).set_index("row")
    frame.index = frame.index.astype(int)
    read = parse_rows(frame, Path(file), sharding.smiles, targets, sharding.id, skip_bad_rows)
    if read.classes:
        raise CosetError(f"{file}: target {targets[0]!r} has words; shards hold numbers, so number the classes")
    graphs = precompute(read.graphs, sharding.transform)
    sizes = [feature_sizes(mol.kind, len(mol.mols)) for mol in read.mols[:1]]
    write_shard(_shard(folder, number), graphs, {"file": file, "skipped": read.skipped, "features": sizes})


def _shared_out(
    settings: tuple[Any, ...], missing: Sequence[int], engine: str, workers: int, retries: int
) -> Iterator[tuple[tuple[float, list[str]], int]]:
    if engine == "ray":
        for answer in over_ray_data(make_shards, settings, [[number] for number in missing], workers, retries):
            yield answer, 1
        return
    count = max(min(workers, len(missing)), -(-len(missing) // _SHARE))
    shares = {f"share {at}": missing[at::count] for at in range(count)}
    jobs = [Job(name, make_shards, (*settings, share)) for name, share in shares.items()]
    for outcome in run_jobs(jobs, "local", workers, retries, threads=1):
        failed = [f"{outcome.name}: {outcome.error}"] if outcome.error else []
        yield outcome.result or (0.0, failed), len(shares[outcome.name])


def _settle(folder: Path, plan: dict[str, Any]) -> None:
    file = folder / PLAN
    if file.is_file():
        earlier = read_tree(file, dict[str, Any])
        changed = [key for key in plan if earlier.get(key) != plan[key]]
        names = [[entry["name"] for entry in each.get("files", ())] for each in (earlier, plan)]
        if changed == ["files"] and names[0] == names[1] and not (folder / MANIFEST).is_file():
            _begin_anew(folder, plan)  # a table was mended: nothing was finished yet
        elif changed:
            raise CosetError(
                f"{folder} was made with another {changed[0].replace('_', '-')} (see {file}); "
                "choose another folder with --output"
            )
        return
    write_json(file, plan)


def _begin_anew(folder: Path, plan: dict[str, Any]) -> None:
    """Shards of rows that are as they were stay; :func:`_cut` removes those whose rows are others."""
    (folder / PARTS).unlink(missing_ok=True)
    for shard in folder.glob("*.arrow"):
        if not (folder / ROWS / f"{shard.stem}.csv").is_file():
            shard.unlink()
    write_json(folder / PLAN, plan)


def _cut(sharding: Sharding, plan: dict[str, Any], folder: Path) -> list[_Part]:
    """Parts of the rows, each a file of its own until its shard is made; what parts there are, in order."""
    file = folder / PARTS
    if file.is_file():
        return read_tree(file, list[_Part])
    make_folder(folder / ROWS)
    columns = list(dict.fromkeys([sharding.smiles, *plan["targets"], *([sharding.id] if sharding.id else [])]))
    parts: list[_Part] = []
    for table in sharding.files:
        for chunk in table_chunks(table, sharding.shard_rows):
            file_of_rows, text = _part(folder, len(parts)), chunk[columns].to_csv(index_label="row")
            if file_of_rows.is_file() and read_text(file_of_rows) != text:
                _shard(folder, len(parts)).unlink(missing_ok=True)
            write_text(file_of_rows, text)
            parts.append({"file": str(table), "rows": len(chunk)})
    for surplus in range(len(parts), len(parts) + sum(1 for _ in folder.glob("*.arrow"))):
        _shard(folder, surplus).unlink(missing_ok=True)
    write_json(file, parts)
    return parts


def _finish(folder: Path, plan: dict[str, Any], parts: Sequence[Any]) -> dict[str, Any]:
    file = folder / MANIFEST
    if file.is_file():
        shutil.rmtree(folder / ROWS, ignore_errors=True)  # a kill may have kept it from being removed
        return dict(read_manifest(file))
    shards: list[list[Any]] = []
    skipped: dict[str, list[int]] = {}
    sizes: list[list[list[int]]] = []
    for number in range(len(parts)):
        shard = Shard(_shard(folder, number))
        shards.append([_shard(folder, number).name, len(shard)])
        skipped.setdefault(shard.about["file"], []).extend(shard.about["skipped"])
        sizes += shard.about["features"]
    if not any(count for _, count in shards):
        raise CosetError(f"{folder}: no row is left with a molecule")
    if any(others != sizes[0] for others in sizes):
        raise CosetError(f"{folder}: some rows are reactions and some are molecules; give a table of each")
    notes = [f"{name}: skipped {len(rows)} unparsable rows: {listed(rows)}" for name, rows in skipped.items() if rows]
    names = [entry["name"] for entry in plan["files"]]
    about = {
        "name": names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more", "shards": shards,
        "target_names": plan["targets"], "transform": plan["transform"], "node_features": sizes[0][0],
        "edge_features": sizes[0][1], "notes": notes, "skipped": {name: rows for name, rows in skipped.items() if rows},
    }  # fmt: skip
    write_json(file, about)
    shutil.rmtree(folder / ROWS, ignore_errors=True)
    return about


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.arrow"


def _part(folder: Path, number: int) -> Path:
    return folder / ROWS / f"{number:06d}.csv"


def _fingerprint(file: Path) -> dict[str, Any]:
    """Enough to notice that a file is another: its name, its size, and a hash of all of it."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    return {"name": file.name, "bytes": file.stat().st_size, "digest": digest}
