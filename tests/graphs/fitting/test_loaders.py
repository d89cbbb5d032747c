import random

import numpy as np
import pytest
import torch
from tiny_graphs import tiny_graphs

from coset.graphs.fitting import loaders
from coset.graphs.fitting.loaders import EpochBatches, OrderedBatches, Views, loader
from coset.runs.seeds import derived_seed, seed_everything


def rows(batches):
    return [[row for row, _ in batch] for batch in batches]


def flat(batches):
    return sorted(row for batch in batches for row in batch)


def test_every_epoch_has_each_graph_once_in_an_order_of_its_own():
    batches = EpochBatches(10, 4, seed=0)
    first = rows(batches)
    batches.set_epoch(1)
    second = rows(batches)
    assert flat(first) == flat(second) == list(range(10))
    assert first != second
    assert second == rows(EpochBatches(10, 4, seed=0, epoch=1))
    assert first != rows(EpochBatches(10, 4, seed=1))


@pytest.mark.parametrize(("size", "sizes"), [(9, [3, 3, 3]), (33, [4, 4, 4, 4, 4, 4, 3, 3, 3]), (3, [3])])
def test_batches_are_of_nearly_equal_size(size, sizes):
    batches = EpochBatches(size, 4, seed=0)
    assert [len(batch) for batch in batches] == sizes
    assert len(batches) == len(sizes)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batches_of_one(monkeypatch, processes):
    whole = rows(EpochBatches(11, 4, seed=0))
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(loaders, "place", lambda rank=rank: (rank, processes))
        parts.append(rows(EpochBatches(11, 4, seed=0)))
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(batch) == flat(shares)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_processes_count_every_row_once_in_evaluation(monkeypatch, size):
    """Equally many batches each, since they wait for one another; what fills them up comes last and is not counted."""
    seen, lengths = [], set()
    for rank in range(4):
        monkeypatch.setattr(loaders, "place", lambda rank=rank: (rank, 4))
        batches = OrderedBatches(size, 2)
        mine = [row for batch in rows(batches) for row in batch]
        assert len(batches) == len(rows(batches))
        lengths.add(tuple(map(len, rows(batches))))
        seen += mine[: len(loaders.share(size))]
    assert sorted(seen) == list(range(size))
    assert len(lengths) == 1


def test_rows_that_lie_together_are_read_together():
    blocks = [5, 0, 7, 3] * 8
    order = [row for batch in rows(EpochBatches(sum(blocks), 6, seed=0, blocks=blocks)) for row in batch]
    assert sorted(order) == list(range(sum(blocks)))
    ends = np.cumsum(blocks)
    visited = np.searchsorted(ends, order, side="right")
    last, first = ({b: max(np.flatnonzero(visited == b)) for b in set(visited)},
                   {b: min(np.flatnonzero(visited == b)) for b in set(visited)})  # fmt: skip
    at_once = [sum(first[b] <= at <= last[b] for b in first) for at in range(len(order))]
    assert max(at_once) <= loaders.WINDOW
    other = EpochBatches(sum(blocks), 6, seed=0, epoch=1, blocks=blocks)
    assert order != [row for batch in rows(other) for row in batch]


def test_views_depend_on_seed_row_and_draw_only():
    def noisy(graph, seed):
        graph.x = torch.rand(graph.x.shape, generator=torch.Generator().manual_seed(seed))
        return graph

    graphs = tiny_graphs(4)
    views = Views(graphs, noisy, seed=0)
    (one,), (again,), (other,) = views[[(1, 0)]], views[[(1, 0)]], views[[(1, 1)]]
    assert torch.equal(one.x, again.x)
    assert not torch.equal(one.x, other.x)
    assert not torch.equal(one.x, Views(graphs, noisy, seed=1)[[(1, 0)]][0].x)
    assert not torch.equal(graphs[1].x, one.x)
    assert len(views) == 4


def test_loader_gives_batches_in_worker_processes_too():
    graphs = tiny_graphs(5)
    ours = [batch.id for batch in loader(Views(graphs, None, 0), OrderedBatches(5, 2), workers=1)]
    assert ours == [["0", "1"], ["2", "3"], ["4"]]


def test_seeds_are_derived_without_collisions_of_neighbours():
    seeds = {derived_seed(seed, epoch) for seed in range(20) for epoch in range(50)}
    assert len(seeds) == 1000


def test_all_streams_are_seeded():
    def draw():
        seed_everything(3, 4)
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    assert draw() == draw()
