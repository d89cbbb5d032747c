"""A collection on disk: factors of thousands of adapters in memory-mapped arrays, one pair of arrays for each shape.

``zoo.json`` holds names, layout, ranks and checksums; ``u_<i>.npy`` and ``v_<i>.npy`` hold ``[adapters, layers, n, r]``
with the scale inside and ranks padded with zero columns, which changes no update; ``m_<i>.npy`` hold DoRA's magnitudes
``[adapters, layers, n]`` if all adapters have them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import torch
from filelock import FileLock
from pydantic import Field
from typing_extensions import TypedDict

from coset.core.errors import CosetError
from coset.core.files import make_folder, takes_paths, write_text
from coset.core.outside import inside, read_arrays, read_tree
from coset.weights.checksums import checksum
from coset.weights.lora.data.adapters import LoraAdapter
from coset.weights.lora.data.factors import Factors, Layout, padded
from coset.weights.lora.data.finding import adapters_below
from coset.weights.lora.data.magnitudes import Magnitudes
from coset.weights.lora.data.reading import load_lora
from coset.weights.lora.data.survey import (
    DIFFERENT,
    SHOWN,
    Progress,
    beside_factors,
    common_layout,
    common_magnitudes,
    copies,
    named,
    survey,
)

INDEX, PARTIAL = "zoo.json", "building.json"
Size = Annotated[int, Field(ge=0)]
STRIDE = 256
"""Adapters that an interrupted build may have to read again."""


@dataclass(frozen=True)
class LoraZoo:
    """An opened collection.

    Attributes:
        names: Of the adapters, in the order of rows.
        layout: Layers in groups of equal shape.
        rank: To which all are padded.
        notes: What was left out or filled when it was built.
        skipped: Adapters that could not be read, with the reason.
        magnitude_groups: Sizes and names of layers with DoRA's magnitudes.
        renamed: Whether layers go by the names of their modules, since several tools wrote the adapters.
    """

    folder: Path
    names: tuple[str, ...]
    layout: Layout
    rank: int
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    magnitude_groups: tuple[tuple[int, tuple[str, ...]], ...] = ()
    renamed: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_cut(self) -> bool:
        """Whether layers that some of its adapters have were left out, since others lack them."""
        return any(note.startswith(DIFFERENT) and "): intersection taken, " in note for note in self.notes)

    def factors(self, rows: Sequence[int] | None = None) -> Factors:
        """Factors of some adapters, or of all, read from disk as float32."""
        chosen: Any = slice(None) if rows is None else np.asarray(rows)
        groups = []
        for i in range(len(self.layout.groups)):
            u, v = (_array(self.folder / f"{side}_{i}.npy")[chosen] for side in "uv")
            groups.append((torch.from_numpy(np.array(u, np.float32)), torch.from_numpy(np.array(v, np.float32))))
        return tuple(groups)

    def magnitudes(self, rows: Sequence[int] | None = None) -> Magnitudes:
        """DoRA's magnitudes of some adapters, or of all; without groups if there are none."""
        chosen: Any = slice(None) if rows is None else np.asarray(rows)
        arrays = [_array(self.folder / f"m_{i}.npy") for i in range(len(self.magnitude_groups))]
        values = tuple(torch.from_numpy(np.array(array[chosen], np.float32)) for array in arrays)
        return Magnitudes(self.magnitude_groups, values)

    def verify(self) -> None:
        """Compare the checksums of all arrays.

        Raises:
            CosetError: A file has changed since it was written.
        """
        for name, wanted in read_tree(self.folder / INDEX, Index)["checksums"].items():
            if checksum(inside(self.folder, name, self.folder / INDEX)) != wanted:
                raise CosetError(f"{self.folder / name} is not what was written: its checksum differs; build it again")


class Index(TypedDict):
    """What ``zoo.json`` says."""

    names: list[str]
    groups: list[tuple[tuple[Size, Size], list[str]]]
    rank: Size
    dtype: Literal["float32", "float16"]
    magnitudes: NotRequired[list[tuple[Size, list[str]]]]
    content: NotRequired[list[str]]
    renamed: NotRequired[bool]
    notes: list[str]
    skipped: list[tuple[str, str]]
    checksums: dict[str, str]


@takes_paths
def open_zoo(folder: Path, *, check: bool = True) -> LoraZoo:
    """Open a collection that :func:`build_zoo` wrote.

    Args:
        folder: Of the collection.
        check: Read all arrays once and hold them to their checksums.

    Raises:
        CosetError: It is not one, was not finished, or is not what was written.
    """
    if not (folder / INDEX).is_file():
        unfinished = (folder / PARTIAL).is_file()
        raise CosetError(f"{folder} {'is not finished: build it again to go on' if unfinished else 'has no zoo.json'}")
    index = read_tree(folder / INDEX, Index)
    layout = Layout(tuple(((n, m), tuple(names)) for (n, m), names in index["groups"]))
    magnitudes = tuple((n, tuple(names)) for n, names in index.get("magnitudes", []))
    for name, wanted in _shapes(len(index["names"]), layout, index["rank"], magnitudes).items():
        file = folder / name
        if not file.is_file():
            raise CosetError(f"{folder} lacks {name}")
        shape = _array(file).shape
        if shape != wanted:
            raise CosetError(f"{file} has shape {shape}; zoo.json says {wanted}")
    skipped = tuple((name, reason) for name, reason in index["skipped"])
    zoo = LoraZoo(
        folder,
        tuple(index["names"]),
        layout,
        index["rank"],
        tuple(index["notes"]),
        skipped,
        magnitudes,
        index.get("renamed", False),
    )
    if check:
        zoo.verify()
    return zoo


def _shapes(
    count: int, layout: Layout, rank: int, magnitudes: tuple[tuple[int, tuple[str, ...]], ...]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays by name of file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, ((n, m), names) in enumerate(layout.groups):
        shapes |= {f"u_{i}.npy": (count, len(names), n, rank), f"v_{i}.npy": (count, len(names), m, rank)}
    return shapes | {f"m_{i}.npy": (count, len(names), n) for i, (n, names) in enumerate(magnitudes)}


@takes_paths
def find_adapters(folder: Path) -> list[Path]:
    """Adapters in a folder and below: PEFT, mlx-lm or diffusers folders, and single safetensors files.

    Links are followed, and an adapter that several paths lead to is taken once. What is hidden, whose name or that of
    a folder above it below this one begins with a dot, is left out.

    Raises:
        CosetError: There is none.
    """
    return adapters_below(folder).paths


def build_zoo(
    sources: Sequence[Path], output: Path, *, root: Path | None = None, layers: str = "same", skip_bad: bool = False,
    lossy: bool = False, dtype: str = "float32", progress: Progress = lambda items, what: items,
) -> LoraZoo:  # fmt: skip
    """Read adapters into a collection; what an interrupted call has written is kept.

    A collection that is there already stays as it is until the new one is whole. Of several processes that build the
    same one at once, the first does and the others wait for it.

    Args:
        sources: Files or folders, as :func:`find_adapters` gives them.
        output: Folder of the collection.
        root: Names are paths below it.
        layers: same (all adapters must have equal layers), intersection, or union (absent layers are zero updates,
            which is exact).
        skip_bad: Leave out adapters that cannot be read, and tell which; an error otherwise.
        lossy: Take adapters whose files hold more than their factors, or do not tell their scale; notes say which.
        dtype: float32 or float16, on disk.
        progress: Wraps what is gone through, e.g. in a progress bar.

    Raises:
        CosetError: Adapters are damaged, belong to another base model, have other layers, or are more than factors;
            all such are named together.
    """
    if dtype not in ("float32", "float16"):
        raise CosetError(f"dtype={dtype!r}: choose float32 or float16")
    began = time.time()
    good, plan, notes, bad = _planned(sources, root, layers, skip_bad, lossy, dtype, progress)
    layout = Layout(tuple(((n, m), tuple(names)) for (n, m), names in plan["groups"]))
    magnitudes = tuple((n, tuple(names)) for n, names in plan["magnitudes"])
    shapes = _shapes(len(good), layout, plan["rank"], magnitudes)
    make_folder(output)
    with FileLock(output / ".lock"):
        if _built_since(output, plan, began):
            return open_zoo(output, check=False)
        _fill(output, good, plan, shapes, layout, magnitudes, progress)
        _put_in_place(output, list(shapes), {**plan, "notes": notes, "skipped": bad})
    return open_zoo(output, check=False)


def _put_in_place(output: Path, arrays: Sequence[str], index: dict[str, Any]) -> None:
    """All arrays are written: they take their names, the index comes last."""
    checksums = {name: checksum(_part(output, name)) for name in arrays}
    (output / INDEX).unlink(missing_ok=True)
    for name in arrays:
        _part(output, name).replace(output / name)
    write_text(output / INDEX, json.dumps({**index, "checksums": checksums}, indent=1) + "\n")
    (output / PARTIAL).unlink(missing_ok=True)


def _planned(
    sources: Sequence[Path], root: Path | None, layers: str, skip_bad: bool, lossy: bool, dtype: str, progress: Progress
) -> tuple[list[Path], dict[str, Any], list[str], list[tuple[str, str]]]:
    """Adapters that can be used, what the collection will hold, notes, and what cannot be used for which reason."""
    called = {path: str(path.relative_to(root)) if root else str(path) for path in sources}
    seen = survey(sources, called, progress, lossy=lossy, dtype=dtype)
    good, bad = [path for path in sources if path in seen.found], seen.bad
    facts = {called[path]: seen.found[path] for path in good}
    said = []
    if bad and not skip_bad:
        shown = "; ".join(f"{name}: {reason}" for name, reason in bad[:SHOWN])
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        said.append(f"{len(bad)} of {len(sources)} adapters cannot be used ({shown}{more}); skip them with --skip-bad")
    try:
        if good:
            layout, notes = common_layout(facts, layers)
    except CosetError as error:
        said.append(str(error))
    if said or not good:
        raise CosetError("; ".join(said) or "no adapter could be read")
    magnitudes, more_notes = common_magnitudes(facts, layout)
    notes += [*more_notes, *beside_factors(facts), *copies(facts)]
    notes += [f"{name}: {what}" for name, fact in facts.items() for what in fact.obstacles]
    plan = {
        "names": list(facts), "groups": [[list(s), list(n)] for s, n in layout.groups],
        "rank": max(fact.rank for fact in facts.values()), "dtype": dtype,
        "magnitudes": [[n, list(names)] for n, names in magnitudes], "renamed": seen.renamed,
        "content": [fact.content for fact in facts.values()],
    }  # fmt: skip
    return good, plan, notes, bad


def _built_since(output: Path, plan: Mapping[str, Any], began: float) -> bool:
    """Whether another process built the same collection meanwhile."""
    file = output / INDEX
    if not file.is_file() or file.stat().st_mtime < began:
        return False
    index: Mapping[str, Any] = read_tree(file)
    return all(index.get(key) == value for key, value in plan.items())


def _fill(
    output: Path, sources: Sequence[Path], plan: dict[str, Any], shapes: dict[str, tuple[int, ...]], layout: Layout,
    magnitudes: tuple[tuple[int, tuple[str, ...]], ...], progress: Progress,
) -> None:  # fmt: skip
    """Write the arrays row by row; every so often it notes how far it has come."""
    before = read_tree(output / PARTIAL, dict[str, Any]) if (output / PARTIAL).is_file() else {}
    kept = before.get("plan") == plan and all(_part(output, name).is_file() for name in shapes)
    done = int(before.get("done", 0)) if kept else 0
    arrays = {}
    mode: Any = "r+" if done else "w+"
    for name, shape in shapes.items():
        arrays[name] = np.lib.format.open_memmap(_part(output, name), mode=mode, dtype=plan["dtype"], shape=shape)
    for row, path in enumerate(progress(sources, "writing the collection")):
        if row < done:
            continue
        adapter = named(load_lora(path), plan["renamed"])
        _write_row(adapter, row, arrays, layout, plan["rank"])
        for i, values in enumerate(Magnitudes.of([adapter], magnitudes).values):
            arrays[f"m_{i}.npy"][row] = values[0].numpy()
        if (row + 1) % STRIDE == 0:
            for array in arrays.values():
                array.flush()
            write_text(output / PARTIAL, json.dumps({"plan": plan, "done": row + 1}))
    for array in arrays.values():
        array.flush()


def _part(output: Path, name: str) -> Path:
    """An array until the collection is whole."""
    return output / f"{name}.part"


def _write_row(adapter: LoraAdapter, row: int, arrays: dict[str, Any], layout: Layout, rank: int) -> None:
    for i, (shape, names) in enumerate(layout.groups):
        u, v = arrays[f"u_{i}.npy"], arrays[f"v_{i}.npy"]
        for place, name in enumerate(names):
            left, right = padded(adapter, name, shape, rank)
            u[row, place], v[row, place] = left.numpy(), right.numpy()


def _array(path: Path) -> np.ndarray:
    """An array of a collection, mapped into memory."""
    array = read_arrays(path, mapped=True).get("")
    if array is None or array.dtype.kind != "f":
        raise CosetError(f"{path} holds no array of floating point numbers")
    return array
