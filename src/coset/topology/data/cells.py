"""Cells of one rank as ragged rows of vertices: arrays to algorithms, a sequence of tuples to a reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from numbers import Integral
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int
from torch import Tensor

Cell = tuple[int, ...]
Array = np.ndarray

GivenCells = Iterable[Sequence[int] | Int[Tensor, " _size"]] | Int[Array, "_cells _size"] | Int[Tensor, "_cells _size"]
"""Vertices of cells as people have them: tuples, or an array or tensor with a row a cell."""


class Cells(Sequence[Cell]):
    """Cell i has the vertices ``members[ptr[i]:ptr[i + 1]]``, in the order in which they were given.

    Args:
        members: Vertices of all cells, one cell after another.
        ptr: Where each cell begins, and the end of the last one.
    """

    __slots__ = ("members", "ptr")

    def __init__(self, members: Int[Array, " entries"], ptr: Int[Array, " cells_and_one"]):
        self.members, self.ptr = members, ptr

    @classmethod
    def of(cls, cells: GivenCells) -> Cells:
        """From vertex tuples, or an array or tensor with a row a cell.

        Raises:
            TypeError: A vertex is no whole number, or a cell no row of vertices; the message is that entry.
        """
        if isinstance(cells, Cells):
            return cells
        if isinstance(cells, Tensor):
            cells = cells.detach().cpu().numpy()
        if isinstance(cells, np.ndarray) and cells.ndim == 2:
            if cells.dtype.kind not in "iu":
                raise TypeError(repr(cells.flat[0].item()) if cells.size else f"entries of type {cells.dtype}")
            return cls.rows(cells)
        rows = [row.tolist() if isinstance(row, Tensor) else row for row in cells]
        try:
            sizes = [len(row) for row in rows]
        except TypeError:
            raise TypeError(repr(next(row for row in rows if not isinstance(row, Sequence)))) from None
        members = _whole(list(chain.from_iterable(rows)))
        return cls(members, _ends(np.array(sizes, dtype=np.int64)))

    @classmethod
    def rows(cls, rows: Int[Array, "cells size"]) -> Cells:
        """Cells of equal size, a row each."""
        count, size = rows.shape
        members = np.ascontiguousarray(rows, dtype=np.int64).reshape(-1)
        return cls(members, np.arange(count + 1, dtype=np.int64) * size)

    @property
    def sizes(self) -> Int[Array, " cells"]:
        """Number of vertices of each cell."""
        return np.diff(self.ptr)

    @property
    def owners(self) -> Int[Array, " entries"]:
        """The cell of every entry of ``members``."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def of_size(self, size: int | np.integer) -> tuple[Int[Array, " cells"], Int[Array, "cells size"]]:
        """Numbers of the cells with so many vertices, and those vertices."""
        chosen = np.flatnonzero(self.sizes == size)
        return chosen, self.members[self.ptr[chosen, None] + np.arange(size)]

    def sorted_members(self) -> Int[Array, " entries"]:
        """The vertices of each cell in growing order."""
        return self.members[np.lexsort((self.members, self.owners))]

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __iter__(self) -> Iterator[Cell]:
        members, ptr = self.members.tolist(), self.ptr.tolist()
        return (tuple(members[a:b]) for a, b in pairwise(ptr))

    @overload
    def __getitem__(self, i: SupportsIndex) -> Cell: ...
    @overload
    def __getitem__(self, i: slice) -> list[Cell]: ...
    def __getitem__(self, i: SupportsIndex | slice) -> Cell | list[Cell]:
        if isinstance(i, slice):
            return list(self)[i]
        here = range(len(self))[i]
        return tuple(self.members[self.ptr[here] : self.ptr[here + 1]].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return list(self) == [tuple(cell) for cell in other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def number_rows(rows: Int[Array, "rows columns"]) -> Int[Array, " rows"]:
    """Equal numbers for equal rows of non-negative entries, and no others; growing with the rows read from the left."""
    if not rows.size:
        return np.zeros(len(rows), dtype=np.int64)
    base = int(rows.max()) + 1
    codes, bound = rows[:, 0].astype(np.int64), base
    for column in rows[:, 1:].T:
        if bound * base >= 2**63:
            codes = np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64)
            bound = len(rows)
        codes, bound = codes * base + column, bound * base
    return codes


def find_rows(wanted: Int[Array, "wanted size"], rows: Int[Array, "rows size"]) -> Int[Array, " wanted"]:
    """For each wanted row the number of the (first) equal one of ``rows``; -1 where there is none."""
    if not len(rows):
        return np.full(len(wanted), -1)
    codes = number_rows(np.concatenate([rows, wanted]))
    known, sought = codes[: len(rows)], codes[len(rows) :]
    order = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known[order], sought), len(rows) - 1)
    found = order[place]
    return np.where(known[found] == sought, found, -1)


def canonical_walks(walks: Int[Array, "walks size"]) -> Int[Array, "walks size"]:
    """Each closed walk from its least vertex on, towards the lesser of that one's two neighbours."""
    size = walks.shape[1]
    turns = walks.argmin(1)[:, None] + np.arange(size)
    forward = np.take_along_axis(walks, turns % size, axis=1)
    backward = np.concatenate([forward[:, :1], forward[:, :0:-1]], axis=1)
    return np.where((forward[:, 1] <= forward[:, -1])[:, None], forward, backward)


def parities(rows: Int[Array, "rows size"]) -> Int[Array, " rows"]:
    """+1 where an even permutation sorts a row of different entries, else -1."""
    swaps = np.zeros(len(rows), dtype=np.int64)
    for i in range(rows.shape[1]):
        swaps += (rows[:, i : i + 1] > rows[:, i + 1 :]).sum(1)
    return 1 - 2 * (swaps % 2)


def _ends(sizes: Int[Array, " cells"]) -> Int[Array, " cells_and_one"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _whole(entries: list[Any]) -> Int[Array, " entries"]:
    for entry in entries:
        if not isinstance(entry, Integral) or isinstance(entry, bool):
            raise TypeError(repr(entry))
    return np.array(entries, dtype=np.int64)
