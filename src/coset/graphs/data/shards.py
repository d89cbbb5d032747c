"""Graphs on disk in shards: Arrow files that are mapped into memory, so that a graph is read when it is asked for.

A shard is one Arrow IPC file with a row a graph; the entries of a tensor are a list, in the narrowest type that holds
them, and the shape and type that a graph had come back when it is read. Any other Arrow reader can open it too. A
folder of shards is finished when it has ``shards.json``; :mod:`coset.graphs.data.sharding` makes one.
"""

from __future__ import annotations

import json
import math
import operator
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, SupportsIndex, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data
from typing_extensions import TypedDict

from coset.core.errors import CosetError, require
from coset.core.files import replacing
from coset.core.outside import inside, parse_tree, read_arrow, read_tree, refusing
from coset.graphs.data.datasets import FRACTIONS
from coset.graphs.data.graph_table import GraphTable
from coset.graphs.data.splits import random_split

MANIFEST = "shards.json"
_OPEN = 64  # shards that are kept mapped: a map costs an open file, not memory
_NARROW = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)


def write_shard(path: Path, graphs: Sequence[Data], about: Mapping[str, Any] | None = None) -> None:
    """Write graphs with equal attributes into one file, whole or not at all.

    Args:
        path: The file.
        graphs: Their attributes may be tensors, numbers and strings; only the axis along which PyG concatenates an
            attribute may differ in length.
        about: Kept with them; what JSON can say.

    Raises:
        CosetError: An attribute is something else, or is missing from some graphs; or the file cannot be written.
    """
    pa = require("pyarrow", "shards")
    fields, arrays = [], []
    for key in sorted(graphs[0].keys()) if graphs else ():
        field, array = _column(pa, key, graphs)
        fields.append(field)
        arrays.append(array)
    schema = pa.schema(fields, metadata={"coset": json.dumps(dict(about or {}))})
    with replacing(path) as part, pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        if graphs:
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _column(pa: Any, key: str, graphs: Sequence[Data]) -> tuple[Any, Any]:
    try:
        values = [graph.stores[0][key] for graph in graphs]
    except KeyError:
        raise CosetError(f"attribute {key!r} is missing from some of the graphs of a shard") from None
    first = values[0]
    if isinstance(first, str | int | float):
        array = pa.array(values)
        return pa.field(key, array.type), array
    if not isinstance(first, Tensor):
        raise CosetError(f"attribute {key!r} is a {type(first).__name__}: shards hold tensors, numbers and strings")
    shape = list(first.shape)
    if shape:
        shape[graphs[0].__cat_dim__(key, first)] = -1
    for value in values:
        if len(value.shape) != len(shape) or any(a not in (-1, b) for a, b in zip(shape, value.shape)):
            raise CosetError(f"attribute {key!r} has shapes {list(first.shape)} and {list(value.shape)} in one shard")
    flat = _narrowed(torch.cat([value.reshape(-1) for value in values]).numpy())
    ends = np.cumsum([0, *(value.numel() for value in values)], dtype=np.int64)
    array = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(flat))
    kind = str(first.dtype).removeprefix("torch.")
    return pa.field(key, array.type, metadata={"shape": json.dumps(shape), "dtype": kind}), array


def _narrowed(values: np.ndarray) -> np.ndarray:
    """Integers in the smallest type that holds them all; anything else, and truth values as bytes, as it is."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    if values.dtype.kind not in "iu" or not values.size:
        return values
    low, high = values.min(), values.max()
    kind = next((k for k in _NARROW if np.iinfo(k).min <= low and high <= np.iinfo(k).max), values.dtype)
    return values.astype(kind)


class _Ragged(NamedTuple):
    ends: np.ndarray
    values: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype


_Kind = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def _ragged(field: Any, column: Any, where: str) -> _Ragged:
    """The entries of a tensor of each graph, as views of the file.

    Raises:
        CosetError: Shape, type and entries do not go together.
    """
    if column.null_count or not hasattr(column, "offsets"):
        raise CosetError(f"{where}: lists without gaps were expected")
    said = field.metadata
    shape = parse_tree(said[b"shape"].decode(), where, tuple[Annotated[int, Field(ge=-1)], ...])
    kind = np.dtype(parse_tree(json.dumps(said[b"dtype"].decode()), where, _Kind))
    ends, values = column.offsets.to_numpy(), column.values.to_numpy()
    counts, fixed = np.diff(ends), math.prod(side for side in shape if side >= 0)
    fits = counts % fixed == 0 if fixed and -1 in shape else counts == fixed
    if shape.count(-1) > 1 or not fits.all():
        raise CosetError(f"{where}: rows of {counts[~fits][:1].tolist()} entries are no tensors of shape {list(shape)}")
    return _Ragged(ends, values, shape, kind)


class Shard:
    """One file of graphs, mapped.

    Raises:
        CosetError: It is missing, or no shard.
    """

    def __init__(self, path: Path):
        table = read_arrow(path)
        if b"coset" not in table.metadata:
            raise CosetError(f"{path} is no shard that can be read: its schema says nothing of coset")
        with refusing(path, "shard"):
            about = table.metadata[b"coset"].decode()
        self.about: dict[str, Any] = parse_tree(about, path, dict[str, Any])
        self._length = 0 if table.batch is None else table.batch.num_rows
        self._ragged: dict[str, _Ragged] = {}
        self._plain: dict[str, Any] = {}
        columns = table.batch.columns if table.batch is not None else ()
        for field, column in zip(table.fields, columns):
            if not field.metadata:
                self._plain[field.name] = column
                continue
            with refusing(path, "shard"):
                self._ragged[field.name] = _ragged(field, column, f"{path}, {field.name}")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> Data:
        data = Data()
        store = data.stores[0]
        for key, (ends, values, shape, kind) in self._ragged.items():
            store[key] = torch.from_numpy(values[ends[row] : ends[row + 1]].astype(kind).reshape(shape))
        for key, column in self._plain.items():
            store[key] = column[row].as_py()
        return data

    def column(self, key: str) -> list[Any] | np.ndarray:
        """Numbers or strings as a list, a tensor that has the same shape in every graph as an array [graphs, ...]."""
        if key in self._plain:
            return self._plain[key].to_pylist()
        _, values, shape, kind = self._ragged[key]
        return values.astype(kind).reshape(len(self), *(1 if side == -1 else side for side in shape[:1]), *shape[1:])

    @property
    def node_counts(self) -> Int[np.ndarray, " graphs"]:
        if "x" in self._ragged:
            ends, _, shape, _ = self._ragged["x"]
            return np.diff(ends) // int(np.prod(shape[1:]))
        return np.array([self[row].num_nodes for row in range(len(self))], dtype=np.int64)


class Manifest(TypedDict):
    """What ``shards.json`` says: files with their number of graphs, what is predicted, and what graphs look like."""

    name: str
    shards: list[tuple[str, Annotated[int, Field(ge=0, lt=1 << 40)]]]
    target_names: list[str]
    transform: str
    node_features: list[int] | int | None
    edge_features: list[int] | int | None
    notes: list[str]
    skipped: NotRequired[dict[str, list[int]]]


def read_manifest(file: Path) -> Manifest:
    """What ``shards.json`` says.

    Raises:
        CosetError: It cannot be read, or says something else.
    """
    return read_tree(file, Manifest)


class ShardedGraphs(Dataset, Sequence[Data]):
    """All graphs of a folder of shards, in order; nothing but the counts is in memory. Can be pickled, sliced, shared.

    Raises:
        CosetError: The folder holds no finished set of shards.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        file = self.folder / MANIFEST
        if not file.is_file():
            raise CosetError(
                f"{self.folder} holds no finished shards: {MANIFEST} is missing (coset preprocess makes them)"
            )
        self.about = read_manifest(file)
        self.counts: list[int] = [count for _, count in self.about["shards"]]
        self._starts = [0, *accumulate(self.counts)]
        self._mapped: OrderedDict[int, Shard] = OrderedDict()

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, row: SupportsIndex) -> Data: ...
    @overload
    def __getitem__(self, row: slice) -> list[Data]: ...
    def __getitem__(self, row: SupportsIndex | slice) -> Data | list[Data]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        row = operator.index(row)
        if not -len(self) <= row < len(self):
            raise IndexError(f"graph {row} of {len(self)}")
        row %= len(self)
        number = bisect_right(self._starts, row) - 1
        return self.shard(number)[row - self._starts[number]]

    def __iter__(self) -> Iterator[Data]:
        return (self[row] for row in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": OrderedDict()}  # another process maps the files itself

    def shard(self, number: int) -> Shard:
        """A shard, mapped if it is not yet."""
        if number not in self._mapped:
            name, count = self.about["shards"][number]
            shard = Shard(inside(self.folder, name, self.folder / MANIFEST))
            if len(shard) != count:
                raise CosetError(f"{self.folder / name} holds {len(shard)} graphs; {MANIFEST} says {count}")
            self._mapped[number] = shard
            while len(self._mapped) > _OPEN:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(number)
        return self._mapped[number]

    def shards(self) -> Iterator[Shard]:
        """One after another, those with any graphs."""
        return (self.shard(number) for number, count in enumerate(self.counts) if count)

    @property
    def node_counts(self) -> Int[Tensor, " graphs"]:
        """Nodes of each graph, from the offsets alone."""
        return torch.from_numpy(np.concatenate([shard.node_counts for shard in self.shards()]))

    @property
    def targets(self) -> Float[Tensor, "graphs targets"]:
        """The ``y`` of all graphs; [graphs, 0] without."""
        if not self.about["target_names"]:
            return torch.empty(len(self), 0)
        return torch.from_numpy(np.concatenate([np.asarray(shard.column("y")).squeeze(1) for shard in self.shards()]))

    def texts(self, key: str) -> list[str]:
        """A column of strings."""
        return [text for shard in self.shards() for text in shard.column(key)]

    def blocks(self, rows: Int[Tensor, " rows"]) -> list[int]:
        """How many of some rows, given in order, lie in each shard."""
        within = torch.bucketize(rows, torch.tensor(self._starts[1:]), right=True)
        return torch.bincount(within, minlength=len(self.counts)).tolist()


class ShardRows(Sequence[Data]):
    """Some rows of sharded graphs, in increasing order."""

    def __init__(self, graphs: ShardedGraphs, rows: Int[Tensor, " rows"]):
        self.graphs, self.rows = graphs, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:
        chosen = self.rows[row]
        return [self.graphs[int(each)] for each in chosen] if isinstance(row, slice) else self.graphs[int(chosen)]

    @property
    def node_counts(self) -> Int[Tensor, " rows"]:
        return self.graphs.node_counts[self.rows]

    @property
    def targets(self) -> Float[Tensor, "rows targets"]:
        return self.graphs.targets[self.rows]

    @property
    def blocks(self) -> list[int]:
        """How many rows lie in each shard: what a shuffle that reads shard by shard needs to know."""
        return self.graphs.blocks(self.rows)


@dataclass(repr=False)
class ShardTable(GraphTable):
    """A table whose graphs stay on disk."""

    graphs: ShardedGraphs  # type: ignore[assignment]

    @property
    def ids(self) -> list[str]:
        return self.graphs.texts("id")

    @property
    def smiles(self) -> list[str]:
        return self.graphs.texts("smiles")

    @property
    def targets(self) -> Float[Tensor, "graphs targets"]:
        return self.graphs.targets

    def subset(self, split: str) -> ShardRows:  # type: ignore[override]
        rows = self.splits.get(split)
        if rows is None:
            raise CosetError(f"{self.name} has no split {split!r}: it has {', '.join(self.splits) or 'none'}")
        return ShardRows(self.graphs, rows)


def read_shards(folder: str | Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> ShardTable:
    """A folder of shards as a table with a random split.

    Raises:
        CosetError: It holds no finished shards, or too few graphs to split.
    """
    graphs = ShardedGraphs(folder)
    about = graphs.about
    splits = random_split(len(graphs), fractions, seed)
    features = about["node_features"], about["edge_features"]
    return ShardTable(graphs, tuple(about["target_names"]), splits, about["name"], *features, tuple(about["notes"]))
