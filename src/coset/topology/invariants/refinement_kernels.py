"""Numbers for equal things, compiled: what colour refinement does to millions of pairs, pass by pass.

All are exact: hashes say where to look, and what is found there is compared entry by entry.
"""

from typing import Any

import numpy as np
from jaxtyping import Int
from numba import njit

from coset.topology.kernels import OPTIONS, put

Codes = Int[np.ndarray, " rows"]

SPREAD = 8
"""Numbers up to so many times as large as there are of them are looked up in a table; others are sorted."""

_START, _FACTOR = np.uint64(14695981039346656037), np.uint64(1099511628211)  # FNV-1a


@njit(**OPTIONS)
def _in_order(there: Any, codes: Any) -> int:
    """Replaces numbers by their ranks among those that are ``there``, marked by 1; how many there are."""
    count = 0
    for value in range(len(there)):
        if there[value]:
            there[value] = count
            count += 1
    for i in range(len(codes)):
        codes[i] = there[codes[i]]
    return count


@njit(**OPTIONS)
def dense(values: Any) -> tuple[Codes, int]:
    """Numbers from 0 on, in the order of the values, and how many; -1 for how many if they are spread too wide."""
    codes = np.empty(len(values), np.int32)
    if not len(values):
        return codes, 0
    least = most = values[0]
    for value in values:
        least, most = min(least, value), max(most, value)
    span = np.int64(most) - np.int64(least) + 1
    if span > SPREAD * len(values) or span > 2**31 - 1:
        return codes, -1
    there = np.zeros(span, np.int32)
    for i in range(len(values)):
        codes[i] = values[i] - least
        there[codes[i]] = 1
    return codes, _in_order(there, codes)


@njit(**OPTIONS)
def paired(first: Codes, second: Codes, firsts: int, seconds: int) -> tuple[Codes, int]:
    """Numbers of the pairs of two dense columns, in their order, and how many; -1 if there might be too many."""
    codes = np.empty(len(first), np.int32)
    if firsts * seconds > SPREAD * len(first) or firsts * seconds > 2**31 - 1:
        return codes, -1
    there = np.zeros(firsts * seconds, np.int32)
    for i in range(len(first)):
        codes[i] = first[i] * seconds + second[i]
        there[codes[i]] = 1
    return codes, _in_order(there, codes)


@njit(**OPTIONS)
def _wider(held: Any, taken: int, more: int) -> Any:
    """The same table with room for more entries."""
    if taken + more <= len(held):
        return held
    wider = np.empty(max(2 * len(held), taken + more), held.dtype)
    put(wider[:taken], held)
    return wider


@njit(**OPTIONS)
def _sort(entries: Any, count: int) -> None:
    """Sorts the first few where they are (Shell 1959: there are seldom more than ten)."""
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, count):
            value, j = entries[i], i - gap
            while j >= 0 and entries[j] > value:
                entries[j + gap] = entries[j]
                j -= gap
            entries[j + gap] = value
        gap //= 3


@njit(**OPTIONS)
def neighbour_multisets(
    colours: Any, start: Any, width: Any, height: Any, along: int, graph: Any, local: Any, ptr: Any, source: Any,
    bridge: Any, bridges: int
) -> Codes:  # fmt: skip
    """Numbers of the multisets of (colour of a neighbour, colour of the bridge), for all pairs (x, s) of a product.

    Args:
        colours: Of pairs, [pairs].
        start, width, height: First pair, number of s and number of x of each graph.
        along: The axis that has neighbours: 0 for x, 1 for s.
        graph, local: Of each element of that axis, its graph and its number there.
        ptr, source, bridge: Neighbours of each element: numbers within the graph, and colours of the cells between.
        bridges: Colours of bridges.

    Returns:
        Equal numbers for equal multisets, from 0 on, in the order in which they are met.
    """
    pairs = len(colours)
    codes = np.empty(pairs, np.int32)
    slots = 16
    table = np.full(slots, -1, np.int32)
    hashes, begin = np.empty(16, np.uint64), np.empty(17, np.int64)
    held = np.empty(64, np.int64)
    begin[0] = 0
    count = 0
    longest = 0
    for t in range(len(ptr) - 1):
        longest = max(longest, ptr[t + 1] - ptr[t])
    own = np.empty(longest, np.int64)
    for t in range(len(ptr) - 1):
        g, degree = graph[t], ptr[t + 1] - ptr[t]
        step = 1 if along else width[g]
        stride = width[g] if along else 1
        for partner in range(height[g] if along else width[g]):
            base = start[g] + partner * stride
            for e in range(degree):
                near = ptr[t] + e
                own[e] = np.int64(colours[base + source[near] * step]) * bridges + bridge[near]
            _sort(own, degree)
            key = _START ^ np.uint64(degree)
            for e in range(degree):
                key = (key ^ np.uint64(own[e])) * _FACTOR
                key ^= key >> np.uint64(29)
            slot = np.int64(key & np.uint64(slots - 1))
            while True:
                code = table[slot]
                if code < 0:
                    break
                if hashes[code] == key and begin[code + 1] - begin[code] == degree:
                    same = True
                    for e in range(degree):
                        if held[begin[code] + e] != own[e]:
                            same = False
                            break
                    if same:
                        break
                slot = (slot + 1) & (slots - 1)
            if code < 0:
                code = count
                table[slot] = code
                hashes = _wider(hashes, count, 1)
                begin = _wider(begin, count + 1, 1)
                held = _wider(held, begin[count], degree)
                hashes[count] = key
                held[begin[count] : begin[count] + degree] = own[:degree]
                begin[count + 1] = begin[count] + degree
                count += 1
                if 2 * count > slots:
                    slots *= 4
                    table = np.full(slots, -1, np.int32)
                    for known in range(count):
                        place = np.int64(hashes[known] & np.uint64(slots - 1))
                        while table[place] >= 0:
                            place = (place + 1) & (slots - 1)
                        table[place] = known
            codes[base + local[t] * step] = code
    return codes
