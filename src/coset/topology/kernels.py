"""Searches in graphs and ragged sets, compiled: inclusion, rings, cliques, balls, distances, ranks of matrices.

Graphs are CSR (``indptr``, ``indices``) over nodes 0 to n - 1, symmetric, without loops. Ragged sets are ``members``
and ``ptr`` as in :class:`coset.topology.data.cells.Cells`.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numba import njit

Whole = Int[np.ndarray, " entries"]
Table = Int[np.ndarray, "rows columns"]
Flags = Bool[np.ndarray, " nodes"]

OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}

ONE_WAY, LOOP, OUTSIDE, TWICE = 1, 2, 3, 4
"""What :func:`undirected_edges` may find wrong."""


@njit(**OPTIONS)
def put(place: Whole, entries: Whole) -> None:
    """The first entries, as many as there is place for: ``place[:] = entries`` would have the message about shapes
    that differ compiled, which takes five seconds."""
    for i in range(len(place)):
        place[i] = entries[i]


@njit(**OPTIONS)
def inclusions(outer: Whole, outer_ptr: Whole, inner: Whole, inner_ptr: Whole, n: int) -> Table:
    """Pairs (x, y), as an array [2, pairs], of an inner set x inside an outer set y; sorted by y, then x."""
    sets = len(inner_ptr) - 1
    # Inner sets by their least vertex: only those whose least vertex y holds can lie in y.
    least = np.empty(sets, np.int64)
    starts = np.zeros(n + 2, np.int64)
    for x in range(sets):
        least[x] = n
        for u in inner[inner_ptr[x] : inner_ptr[x + 1]]:
            least[x] = min(least[x], u)
        starts[least[x] + 1] += 1
    for v in range(n):
        starts[v + 1] += starts[v]
    by_least, fill = np.empty(sets, np.int64), starts[:-1].copy()
    for x in range(sets):
        by_least[fill[least[x]]] = x
        fill[least[x]] += 1
    holds = np.full(n, -1, np.int64)
    found = np.empty((2, max(16, 4 * (len(outer_ptr) - 1))), np.int64)
    count = 0
    for y in range(len(outer_ptr) - 1):
        begin = count
        for v in outer[outer_ptr[y] : outer_ptr[y + 1]]:
            holds[v] = y
        for v in outer[outer_ptr[y] : outer_ptr[y + 1]]:
            for x in by_least[starts[v] : starts[v + 1]]:
                inside = True
                for u in inner[inner_ptr[x] : inner_ptr[x + 1]]:
                    if holds[u] != y:
                        inside = False
                        break
                if inside:
                    if count == found.shape[1]:
                        more = np.empty((2, 2 * count), np.int64)
                        put(more[0, :count], found[0])
                        put(more[1, :count], found[1])
                        found = more
                    found[0, count], found[1, count] = x, y
                    count += 1
        found[0, begin:count].sort()
    return found[:, :count].copy()


@njit(**OPTIONS)
def _last_edge(index: Table, u: int, v: int) -> int:
    """Where the edge u to v is listed last."""
    found = -1
    for e in range(index.shape[1]):
        if index[0, e] == u and index[1, e] == v:
            found = e
    return found


@njit(**OPTIONS)
def undirected_edges(index: Table, n: int) -> tuple[Table, Whole, Whole, int, int]:
    """Edges u < v of an edge list [2, edges] in both directions, in its order, and their CSR.

    Returns:
        edges [undirected, 2], indptr, indices (sorted), what is wrong (0 if nothing) and where.
    """
    total = index.shape[1]
    degree = np.zeros(n + 1, np.int64)
    half = 0
    for e in range(total):
        u, v = index[0, e], index[1, e]
        if u < 0 or v < 0 or u >= n or v >= n:
            return np.empty((0, 2), np.int64), degree, degree, OUTSIDE, e
        if u == v:
            return np.empty((0, 2), np.int64), degree, degree, LOOP, e
        degree[u + 1] += 1
        half += u < v
    indptr = np.cumsum(degree)
    indices, fill = np.empty(total, np.int64), indptr[:-1].copy()
    for e in range(total):
        u = index[0, e]
        indices[fill[u]] = index[1, e]
        fill[u] += 1
    for v in range(n):
        indices[indptr[v] : indptr[v + 1]].sort()
        for i in range(indptr[v] + 1, indptr[v + 1]):
            if indices[i] == indices[i - 1]:
                return np.empty((0, 2), np.int64), degree, degree, TWICE, _last_edge(index, v, indices[i])
    edges, count = np.empty((half, 2), np.int64), 0
    for e in range(total):
        u, v = index[0, e], index[1, e]
        back = indices[indptr[v] : indptr[v + 1]]
        place = np.searchsorted(back, u)
        if place == len(back) or back[place] != u:
            return edges, indptr, indices, ONE_WAY, e
        if u < v:
            edges[count, 0], edges[count, 1] = u, v
            count += 1
    return edges, indptr, indices, 0, 0


@njit(**OPTIONS)
def in_two_core(indptr: Whole, indices: Whole) -> Flags:
    """Which nodes remain when those with fewer than two neighbours are taken away again and again."""
    n = len(indptr) - 1
    degree = np.diff(indptr)
    kept = np.ones(n, np.bool_)
    waiting = [v for v in range(n) if degree[v] < 2]
    while len(waiting):
        v = waiting.pop()
        if not kept[v]:
            continue
        kept[v] = False
        for w in indices[indptr[v] : indptr[v + 1]]:
            degree[w] -= 1
            if kept[w] and degree[w] < 2:
                waiting.append(w)
    return kept


@njit(**OPTIONS)
def _hops_above(indptr: Whole, indices: Whole, alive: Flags, root: int, hops: Whole, queue: Whole) -> None:
    """Hops from the root through nodes that are alive and not below it; ``hops`` is -1 elsewhere."""
    hops[:] = -1
    hops[root] = 0
    queue[0] = root
    read, write = 0, 1
    while read < write:
        v = queue[read]
        read += 1
        for w in indices[indptr[v] : indptr[v + 1]]:
            if w >= root and alive[w] and hops[w] < 0:
                hops[w] = hops[v] + 1
                queue[write] = w
                write += 1


@njit(**OPTIONS)
def _same_set(members: Whole, a: int, b: int, size: int) -> bool:
    return np.array_equal(members[a : a + size], members[b : b + size])


@njit(**OPTIONS)
def rings(
    indptr: Whole, indices: Whole, longest: int, induced: bool, by_vertices: bool, most: int
) -> tuple[Whole, Whole, bool]:
    """Cycles of 3 to ``longest`` nodes, each once, as ragged walks from their least node.

    Depth-first from every node s through greater nodes, cut off where the way back to s would be too long.

    Args:
        induced: Only those without chords.
        by_vertices: Keep the first cycle of every set of nodes.
        most: Give up beyond so many cycles.

    Returns:
        members, ptr, and whether there were more than ``most``.
    """
    n = len(indptr) - 1
    alive = in_two_core(indptr, indices)
    members, ptr = np.empty(64, np.int64), np.zeros(16, np.int64)
    ordered = np.empty(64, np.int64)  # the same cycles, each sorted
    table = np.full(64, -1, np.int64)
    seen = np.zeros(16, np.uint64)
    count, cycles, end = 0, 0, 0
    hops, queue = np.empty(n, np.int64), np.empty(n, np.int64)
    path, tried = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    on_path, touching = np.zeros(n, np.bool_), np.zeros(n, np.int64)
    salt, key = np.empty(n, np.uint64), np.uint64(0)
    state = np.uint64(88172645463325252)
    for v in range(n):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        salt[v] = state
    for s in range(n):
        if not alive[s]:
            continue
        _hops_above(indptr, indices, alive, s, hops, queue)
        path[0], tried[0], depth = s, indptr[s], 0
        on_path[s] = True
        if induced:
            for w in indices[indptr[s] : indptr[s + 1]]:
                touching[w] += 1
        while depth >= 0:
            v = path[depth]
            if tried[depth] == indptr[v + 1]:
                on_path[v] = False
                if induced:
                    for w in indices[indptr[v] : indptr[v + 1]]:
                        touching[w] -= 1
                depth -= 1
                continue
            w = indices[tried[depth]]
            tried[depth] += 1
            if w < s or hops[w] < 0:
                continue
            if w == s:
                if depth < 2 or path[1] > path[depth]:
                    continue
                size = depth + 1
                cycles += 1
                if cycles > most:
                    return members[:end], ptr[: count + 1], True
                while end + size > len(members):
                    members = np.concatenate((members, np.empty_like(members)))
                    ordered = np.concatenate((ordered, np.empty_like(ordered)))
                put(members[end : end + size], path)
                if by_vertices:
                    put(ordered[end : end + size], path)
                    ordered[end : end + size].sort()
                    key = np.uint64(size)
                    for i in range(size):
                        key += salt[path[i]]
                    mask = len(table) - 1
                    slot = np.int64(key & np.uint64(mask))
                    known = False
                    while table[slot] >= 0:
                        other = table[slot]
                        same_size = ptr[other + 1] - ptr[other] == size
                        if seen[other] == key and same_size and _same_set(ordered, ptr[other], end, size):
                            known = True
                            break
                        slot = (slot + 1) & mask
                    if known:
                        continue
                    table[slot] = count
                if count + 2 > len(ptr) or count + 1 > len(seen):
                    ptr = np.concatenate((ptr, np.empty_like(ptr)))
                    seen = np.concatenate((seen, np.empty_like(seen)))
                if by_vertices:
                    seen[count] = key
                count += 1
                end += size
                ptr[count] = end
                if by_vertices and 2 * count > len(table):
                    table = np.full(4 * len(table), -1, np.int64)
                    mask = len(table) - 1
                    for other in range(count):
                        slot = np.int64(seen[other] & np.uint64(mask))
                        while table[slot] >= 0:
                            slot = (slot + 1) & mask
                        table[slot] = other
                continue
            if on_path[w] or depth + 1 + hops[w] >= longest + 1:
                continue
            # Of a chordless cycle the next node touches the last one only, or also s, which it then has to close.
            if induced and depth > 0 and touching[w] > 1 and not (touching[w] == 2 and hops[w] == 1):
                continue
            if induced and depth > 0 and hops[v] == 1 and depth > 1:
                continue
            depth += 1
            path[depth], tried[depth] = w, indptr[w]
            on_path[w] = True
            if induced:
                for u in indices[indptr[w] : indptr[w + 1]]:
                    touching[u] += 1
    return members[:end], ptr[: count + 1], False


@njit(**OPTIONS)
def triangles(indptr: Whole, indices: Whole) -> Table:
    """Rows u < v < w of nodes that are joined pairwise, in growing order."""
    n = len(indptr) - 1
    found, count = np.empty((16, 3), np.int64), 0
    for u in range(n):
        for v in indices[indptr[u] : indptr[u + 1]]:
            if v < u:
                continue
            i, j = indptr[u], indptr[v]
            while i < indptr[u + 1] and j < indptr[v + 1]:
                a, b = indices[i], indices[j]
                if a == b and a > v:
                    if count == len(found):
                        found = np.concatenate((found, np.empty_like(found)))
                    found[count, 0], found[count, 1], found[count, 2] = u, v, a
                    count += 1
                i += a <= b
                j += b <= a
    return found[:count]


@njit(**OPTIONS)
def balls(indptr: Whole, indices: Whole, radius: int) -> tuple[Whole, Whole]:
    """Closed balls of a radius around all nodes, as ragged sorted rows, node by node."""
    n = len(indptr) - 1
    seen, queue, hops = np.full(n, -1, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    members, ptr, end = np.empty(max(16, 4 * n), np.int64), np.zeros(n + 1, np.int64), 0
    for root in range(n):
        read, write = 0, 1
        queue[0], seen[root], hops[root] = root, root, 0
        while read < write:
            v = queue[read]
            read += 1
            if hops[v] == radius:
                break
            for w in indices[indptr[v] : indptr[v + 1]]:
                if seen[w] != root:
                    seen[w], hops[w] = root, hops[v] + 1
                    queue[write] = w
                    write += 1
        while end + write > len(members):
            members = np.concatenate((members, np.empty_like(members)))
        put(members[end : end + write], np.sort(queue[:write]))
        end += write
        ptr[root + 1] = end
    return members[:end], ptr


@njit(**OPTIONS)
def _farthest(indptr: Whole, indices: Whole, sources: Whole, hops: Whole, queue: Whole) -> int:
    """Breadth-first search from several nodes at once; ``hops`` is -1 where nothing leads. Returns the largest."""
    hops[:] = -1
    write = 0
    for v in sources:
        if hops[v] < 0:
            hops[v] = 0
            queue[write] = v
            write += 1
    read = 0
    while read < write:
        v = queue[read]
        read += 1
        for w in indices[indptr[v] : indptr[v + 1]]:
            if hops[w] < 0:
                hops[w] = hops[v] + 1
                queue[write] = w
                write += 1
    return hops[queue[write - 1]] if write else 0


@njit(**OPTIONS)
def eccentricities(indptr: Whole, indices: Whole) -> Whole:
    """Hops from every node to the farthest one that it reaches; memory of one search."""
    n = len(indptr) - 1
    hops, queue, found = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    source = np.empty(1, np.int64)
    for v in range(n):
        source[0] = v
        found[v] = _farthest(indptr, indices, source, hops, queue)
    return found


@njit(**OPTIONS)
def hops_to_sets(indptr: Whole, indices: Whole, members: Whole, ptr: Whole, most: int) -> Table:
    """Hops from the nearest member of every set to every node, as uint8 [sets, nodes]: ``most`` stands for more,
    ``most + 1`` where nothing leads."""
    n, sets = len(indptr) - 1, len(ptr) - 1
    hops, queue = np.empty(n, np.int64), np.empty(n, np.int64)
    found = np.full((sets, n), most + 1, np.uint8)
    for s in range(sets):
        _farthest(indptr, indices, members[ptr[s] : ptr[s + 1]], hops, queue)
        for v in range(n):
            if hops[v] >= 0:
                found[s, v] = min(hops[v], most)
    return found


@njit(**OPTIONS)
def diameter(indptr: Whole, indices: Whole) -> int:
    """The largest finite distance, by searches from chosen nodes only.

    A search from v bounds every node w of its component: max(d, e - d) <= eccentricity(w) <= e + d for d = d(v, w) and
    e = eccentricity(v). It is over when no upper bound beats the largest eccentricity found; nodes with the highest
    upper and the lowest lower bound are searched in turn (Takes and Kosters, "Determining the Diameter of Small World
    Networks", 2011).
    """
    n = len(indptr) - 1
    hops, queue = np.empty(n, np.int64), np.empty(n, np.int64)
    lower, upper = np.zeros(n, np.int64), np.full(n, n, np.int64)
    source, best, highest = np.empty(1, np.int64), 0, True
    while True:
        chosen = -1
        for v in range(n):
            if upper[v] > best:
                better = upper[v] > upper[chosen] if highest else lower[v] < lower[chosen]
                chosen = v if chosen < 0 or better else chosen
        if chosen < 0:
            return best
        highest = not highest
        source[0] = chosen
        e = _farthest(indptr, indices, source, hops, queue)
        best = max(best, e)
        for w in range(n):
            if hops[w] >= 0:
                lower[w] = max(lower[w], hops[w], e - hops[w])
                upper[w] = min(upper[w], e + hops[w])
        upper[chosen] = e


@njit(**OPTIONS)
def _farthest_set(hops: Whole, members: Whole, ptr: Whole) -> int:
    """The largest over sets of the least hops to their members; sets without a member that was reached do not count."""
    found = -1
    for x in range(len(ptr) - 1):
        nearest = -1
        for v in members[ptr[x] : ptr[x + 1]]:
            if hops[v] >= 0 and (nearest < 0 or hops[v] < nearest):
                nearest = hops[v]
        found = max(found, nearest)
    return found


@njit(**OPTIONS)
def cross_diameter(indptr: Whole, indices: Whole, low: Whole, low_ptr: Whole, high: Whole, high_ptr: Whole) -> int:
    """max over sets s of ``high`` and x of ``low`` of the least hops from s to x; -1 if no two are joined.

    A node u at e hops from the farthest x bounds every set s of its component: no x is more than e + d(u, s) from s. So
    only sets that may still beat the best are searched from, the most promising first.
    """
    n, sets = len(indptr) - 1, len(high_ptr) - 1
    hops, queue = np.empty(n, np.int64), np.empty(n, np.int64)
    upper, best = np.full(sets, n + 1), -1
    while True:
        chosen = np.argmax(upper)
        if upper[chosen] <= best:
            return best
        members = high[high_ptr[chosen] : high_ptr[chosen + 1]]
        _farthest(indptr, indices, members, hops, queue)
        best, upper[chosen] = max(best, _farthest_set(hops, low, low_ptr)), -1
        _farthest(indptr, indices, members[:1], hops, queue)
        e = _farthest_set(hops, low, low_ptr)
        for s in range(sets):
            if upper[s] <= best:
                continue
            nearest, everywhere = n, True
            for v in high[high_ptr[s] : high_ptr[s + 1]]:
                everywhere &= hops[v] >= 0
                nearest = min(nearest, hops[v])
            if everywhere:
                upper[s] = min(upper[s], e + nearest)


@njit(**OPTIONS)
def _push(heap: Whole, size: int, value: int) -> Whole:
    """Add to a max-heap; returns the heap, larger if it was full."""
    if size == len(heap):
        heap = np.concatenate((heap, np.empty_like(heap)))
    i = size
    while i and heap[(i - 1) // 2] < value:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    heap[i] = value
    return heap


@njit(**OPTIONS)
def _pop(heap: Whole, size: int) -> int:
    """Take the largest of a max-heap out, leaving ``size - 1``."""
    top, last = heap[0], heap[size - 1]
    i, n = 0, size - 1
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= last:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = last
    return top


@njit(**OPTIONS)
def _inverse(a: int, p: int) -> int:
    """1 / a modulo the prime p."""
    result, power, exponent = 1, a % p, p - 2
    while exponent:
        if exponent & 1:
            result = result * power % p
        power = power * power % p
        exponent >>= 1
    return result


@njit(**OPTIONS)
def rank_of_columns(indptr: Whole, indices: Whole, values: Whole, rows: int, p: int) -> int:
    """Rank of a sparse matrix (CSC) over the field of p < 2^31 elements, by reducing columns to distinct pivots.

    The column at hand lies in a dense array with a heap of its places; reduced columns stay sparse.
    """
    work, listed = np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
    pivot_start, pivot_end = np.full(rows, -1, np.int64), np.zeros(rows, np.int64)
    kept_rows, kept_values, end = np.empty(len(indices) + 16, np.int64), np.empty(len(indices) + 16, np.int64), 0
    heap, rank = np.empty(64, np.int64), 0
    for j in range(len(indptr) - 1):
        size = 0
        for e in range(indptr[j], indptr[j + 1]):
            i = indices[e]
            work[i] = (work[i] + values[e]) % p
            if not listed[i]:
                listed[i] = True
                heap = _push(heap, size, i)
                size += 1
        while size:
            low = _pop(heap, size)
            size -= 1
            listed[low] = False
            if not work[low]:
                continue
            start = pivot_start[low]
            if start >= 0:
                factor = work[low]
                for e in range(start, pivot_end[low]):
                    i = kept_rows[e]
                    work[i] = (work[i] - factor * kept_values[e]) % p
                    if not listed[i] and i != low:
                        listed[i] = True
                        heap = _push(heap, size, i)
                        size += 1
                continue
            inverse = _inverse(work[low], p)
            pivot_start[low] = end
            rank += 1
            while end + size + 1 > len(kept_rows):
                kept_rows = np.concatenate((kept_rows, np.empty_like(kept_rows)))
                kept_values = np.concatenate((kept_values, np.empty_like(kept_values)))
            kept_rows[end], kept_values[end] = low, 1
            end += 1
            for e in range(size):
                i = heap[e]
                listed[i] = False
                if work[i]:
                    kept_rows[end], kept_values[end] = i, work[i] * inverse % p
                    end += 1
                work[i] = 0
            work[low] = 0
            pivot_end[low] = end
            size = 0
    return rank
