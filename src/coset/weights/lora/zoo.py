"""A collection on disk: factors of thousands of adapters in memory-mapped arrays, one pair of arrays for each shape.

``zoo.json`` holds names, layout, ranks and checksums; ``u_<i>.npy`` and ``v_<i>.npy`` hold ``[adapters, layers, n, r]``
with the scale inside and ranks padded with zero columns, which changes no update.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coset.errors import CosetError
from coset.files import write_text
from coset.weights.lora.adapters import LoraAdapter
from coset.weights.lora.factors import Factors, Layout, padded
from coset.weights.lora.reading import load_lora, natural_key

INDEX, PARTIAL = "zoo.json", "building.json"


@dataclass(frozen=True)
class LoraZoo:
    """An opened collection.

    Attributes:
        names: Of the adapters, in the order of rows.
        layout: Layers in groups of equal shape.
        rank: To which all are padded.
        notes: What was left out or filled when it was built.
        skipped: Adapters that could not be read, with the reason.
    """

    folder: Path
    names: tuple[str, ...]
    layout: Layout
    rank: int
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def factors(self, rows: Sequence[int] | None = None) -> Factors:
        """Factors of some adapters, or of all, read from disk as float32."""
        chosen: Any = slice(None) if rows is None else np.asarray(rows)
        groups = []
        for i in range(len(self.layout.groups)):
            u, v = (np.load(self.folder / f"{side}_{i}.npy", mmap_mode="r")[chosen] for side in "uv")
            groups.append((torch.from_numpy(np.array(u, np.float32)), torch.from_numpy(np.array(v, np.float32))))
        return tuple(groups)

    def verify(self) -> None:
        """Compare the checksums of all arrays.

        Raises:
            CosetError: A file has changed since it was written.
        """
        for name, wanted in _index(self.folder / INDEX)["checksums"].items():
            if _checksum(self.folder / name) != wanted:
                raise CosetError(f"{self.folder / name} is not what was written: its checksum differs; build it again")


def open_zoo(folder: Path) -> LoraZoo:
    """Open a collection that :func:`build_zoo` wrote.

    Raises:
        CosetError: It is not one, or was not finished.
    """
    if not (folder / INDEX).is_file():
        unfinished = (folder / PARTIAL).is_file()
        raise CosetError(f"{folder} {'is not finished: build it again to go on' if unfinished else 'has no zoo.json'}")
    index = _index(folder / INDEX)
    layout = Layout(tuple(((n, m), tuple(names)) for (n, m), names in index["groups"]))
    for i, ((n, m), names) in enumerate(layout.groups):
        for side, size in (("u", n), ("v", m)):
            file = folder / f"{side}_{i}.npy"
            if not file.is_file():
                raise CosetError(f"{folder} lacks {file.name}")
            shape, wanted = np.load(file, mmap_mode="r").shape, (len(index["names"]), len(names), size, index["rank"])
            if shape != wanted:
                raise CosetError(f"{file} has shape {shape}; zoo.json says {wanted}")
    skipped = tuple((name, reason) for name, reason in index["skipped"])
    return LoraZoo(folder, tuple(index["names"]), layout, index["rank"], tuple(index["notes"]), skipped)


def find_adapters(folder: Path) -> list[Path]:
    """Adapters in a folder and below: PEFT or diffusers folders, and single safetensors files.

    Raises:
        CosetError: There is none.
    """
    if not folder.is_dir():
        raise CosetError(f"{folder} is not a folder of adapters")
    found: set[Path] = set()
    for file in folder.rglob("*"):
        if file.name in ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"):
            found.add(file.parent)
        elif file.suffix == ".safetensors":
            found.add(file.parent if file.name == "pytorch_lora_weights.safetensors" else file)
    if not found:
        raise CosetError(f"{folder} holds no adapters (adapter_model.safetensors, *.safetensors)")
    return sorted(found, key=lambda path: natural_key(str(path)))


def build_zoo(
    sources: Sequence[Path],
    output: Path,
    *,
    root: Path | None = None,
    layers: str = "same",
    skip_bad: bool = False,
    dtype: str = "float32",
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, what: items,
) -> LoraZoo:
    """Read adapters into a collection; what an interrupted call has written is kept.

    Args:
        sources: Files or folders, as :func:`find_adapters` gives them.
        output: Folder of the collection.
        root: Names are paths below it.
        layers: same (all adapters must have equal layers), intersection, or union (absent layers are zero updates,
            which is exact).
        skip_bad: Leave out adapters that cannot be read, and tell which; an error otherwise.
        dtype: float32 or float16, on disk.
        progress: Wraps what is gone through, e.g. in a progress bar.

    Raises:
        CosetError: An adapter is damaged or belongs to another base model; all such are named together.
    """
    called = {path: str(path.relative_to(root)) if root else str(path) for path in sources}
    shapes, bad = _survey(sources, called, progress)
    if bad and not skip_bad:
        shown = "; ".join(f"{name}: {reason}" for name, reason in bad[:5])
        raise CosetError(f"{len(bad)} of {len(sources)} adapters cannot be used ({shown}); skip them with --skip-bad")
    good = [path for path in sources if path in shapes]
    if not good:
        raise CosetError("no adapter could be read")
    layout, notes = _common_layout({called[path]: shapes[path] for path in good}, layers)
    rank = max(r for path in good for (_, _, r) in shapes[path].values())
    names = [called[path] for path in good]
    output.mkdir(parents=True, exist_ok=True)
    plan = {"names": names, "groups": [[list(s), list(n)] for s, n in layout.groups], "rank": rank, "dtype": dtype}
    _fill(output, good, plan, layout, dtype, progress)
    files = [f"{side}_{i}.npy" for i in range(len(layout.groups)) for side in "uv"]
    checksums = {name: _checksum(output / name) for name in files}
    index = {**plan, "notes": notes, "skipped": bad, "checksums": checksums}
    write_text(output / INDEX, json.dumps(index, indent=1) + "\n")
    (output / PARTIAL).unlink(missing_ok=True)
    return open_zoo(output)


def _survey(
    sources: Sequence[Path], called: dict[Path, str], progress: Callable[[Iterable[Any], str], Iterable[Any]]
) -> tuple[dict[Path, dict[str, tuple[int, int, int]]], list[tuple[str, str]]]:
    """(n, m, r) by layer of every adapter, and those that cannot be read."""
    shapes: dict[Path, dict[str, tuple[int, int, int]]] = {}
    bad: list[tuple[str, str]] = []
    for path in progress(sources, "checking adapters"):
        try:
            adapter = load_lora(path)
        except CosetError as error:
            bad.append((called[path], str(error).removeprefix(f"{path}: ")))
            continue
        shapes[path] = {name: (*pair.shape, pair.rank) for name, pair in adapter.layers.items()}
    majority: dict[str, dict[tuple[int, int], int]] = {}
    for found in shapes.values():
        for name, (n, m, _) in found.items():
            votes = majority.setdefault(name, {})
            votes[(n, m)] = votes.get((n, m), 0) + 1
    usual = {name: max(votes, key=lambda s: votes[s]) for name, votes in majority.items()}
    for path in list(shapes):
        for name, (n, m, _) in shapes[path].items():
            if (n, m) != usual[name]:
                reason = f"{name} is {(n, m)}, in most adapters {usual[name]}: another base model"
                bad.append((called[path], reason))
                del shapes[path]
                break
    return shapes, bad


def _common_layout(shapes: dict[str, dict[str, tuple[int, int, int]]], layers: str) -> tuple[Layout, list[str]]:
    if layers not in ("same", "intersection", "union"):
        raise CosetError(f"layers={layers!r}: choose same, intersection or union")
    sets = {name: frozenset(found) for name, found in shapes.items()}
    union = frozenset().union(*sets.values())
    common = union.intersection(*sets.values())
    notes = []
    if union != common:
        example, present = next((name, present) for name, present in sets.items() if present != union)
        missing = sorted(union - present, key=natural_key)
        what = f"{example} lacks {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        if layers == "same":
            raise CosetError(
                f"the adapters have different layers ({what}): keep common ones with --layers intersection, "
                "or fill with zero updates with --layers union"
            )
        notes.append(f"layers differ ({what}): {layers} taken, {len(common)} of {len(union)} are in all")
    kept = union if layers == "union" else common
    if not kept:
        raise CosetError("the adapters have no layer in common")
    first = {name: shape for found in shapes.values() for name, shape in found.items()}
    return Layout.of((name, first[name][:2]) for name in sorted(kept, key=natural_key)), notes


def _fill(
    output: Path, sources: Sequence[Path], plan: dict[str, Any], layout: Layout, dtype: str,
    progress: Callable[[Iterable[Any], str], Iterable[Any]],
) -> None:  # fmt: skip
    """Write the arrays row by row; every 256 rows it notes how far it has come."""
    if dtype not in ("float32", "float16"):
        raise CosetError(f"dtype={dtype!r}: choose float32 or float16")
    before = _index(output / PARTIAL) if (output / PARTIAL).is_file() else {}
    done = int(before.get("done", 0)) if before.get("plan") == plan else 0
    rank = plan["rank"]
    (output / INDEX).unlink(missing_ok=True)
    arrays = []
    for i, ((n, m), names) in enumerate(layout.groups):
        pair = []
        for side, size in (("u", n), ("v", m)):
            full, file = (len(sources), len(names), size, rank), output / f"{side}_{i}.npy"
            mode: Any = "r+" if done and file.is_file() else "w+"
            pair.append(np.lib.format.open_memmap(file, mode=mode, dtype=dtype, shape=full))
        arrays.append(pair)
    for row, path in enumerate(progress(sources, "writing the collection")):
        if row < done:
            continue
        adapter = load_lora(path)
        for (u, v), (shape, names) in zip(arrays, layout.groups, strict=True):
            _write_row(adapter, row, u, v, shape, names, rank)
        if row % 256 == 255:
            for array in (a for pair in arrays for a in pair):
                array.flush()
            write_text(output / PARTIAL, json.dumps({"plan": plan, "done": row + 1}))
    for array in (a for pair in arrays for a in pair):
        array.flush()


def _write_row(
    adapter: LoraAdapter, row: int, u: np.ndarray, v: np.ndarray, shape: tuple[int, int], names: tuple[str, ...],
    rank: int,
) -> None:  # fmt: skip
    for i, name in enumerate(names):
        left, right = padded(adapter, name, shape, rank)
        u[row, i], v[row, i] = left.numpy(), right.numpy()


def _index(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CosetError(f"{path} cannot be read: {error}") from error


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise CosetError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    return digest.hexdigest()
