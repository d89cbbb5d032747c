"""Batches that depend on nothing but (seed, epoch): the same after a resume, and for any number of processes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric.data import Batch, Data

from coset.graphs.fitting.neighbourhoods import NodeBatches
from coset.relations.structure import KEY, Structure
from coset.runs.seeds import derived_seed

View = Callable[[Data, int], Data]
"""A random transform: graph, seed -> graph."""
Key = tuple[int, int]
"""Row of a graph, and the number of the draw of its view."""

WINDOW = 8  # blocks whose rows are mixed: of 5,000 rows each, 40,000 at a time
FIRST_VOTE = 1_000_000_000  # draws in training count epochs from 0; those of an evaluation count votes from here


class Views(Dataset):
    """Graphs by lists of keys, with a random transform applied afresh at each draw."""

    def __init__(self, graphs: Sequence[Data], view: View | None, seed: int):
        self.graphs, self.view, self.seed = graphs, view, seed

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, keys: list[Key]) -> list[Data]:
        return [self._draw(row, draw) for row, draw in keys]

    def _draw(self, row: int, draw: int) -> Data:
        graph = self.graphs[row]
        return graph if self.view is None else self.view(graph.clone(), derived_seed(self.seed, draw, row))


def views(graphs: Sequence[Data] | NodeBatches, view: View | None, seed: int) -> Views | NodeBatches:
    """What a loader draws from: graphs by their views, or neighbourhoods, which are drawn as they are."""
    return graphs if isinstance(graphs, NodeBatches) else Views(graphs, view, seed)


class EpochBatches(Sampler[list[Key]]):
    """A new order every epoch, cut into batches whose sizes differ by at most one.

    Equal sizes leave no small remainder, whose batch statistics would say little. Of every batch each of several
    processes takes its share, so that their mean gradient is that of the whole batch.

    Args:
        size: Rows.
        batch_size: Of all processes together.
        seed: Of the order.
        epoch: The first.
        costs: What each row costs; the shares of a batch then cost about the same, so that no process waits for long.
        blocks: Sizes of runs of rows that lie together on disk. Runs are then taken in a random order, ``WINDOW`` at a
            time, and rows are mixed within these only, so that a pass reads every run once.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        costs: Sequence[float] | None = None,
        blocks: Sequence[int] | None = None,
    ):
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, epoch
        self.costs, self.blocks = costs, blocks

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, (rank, processes) = self.epoch, place()
        generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
        order = torch.randperm(self.size, generator=generator)
        if self.blocks is not None:
            order = _near_order(self.blocks, generator)
        for batch in order.tensor_split(len(self)):
            yield [(row, epoch) for row in fair_share(batch.tolist(), self.costs, rank, processes)]


def _near_order(blocks: Sequence[int], generator: torch.Generator) -> Int[Tensor, " rows"]:
    """All rows, mixed within a few blocks at a time; the blocks in random order."""
    runs = torch.arange(sum(blocks)).split(list(blocks))
    chosen = [runs[block] for block in torch.randperm(len(runs), generator=generator).tolist()]
    windows = [torch.cat(chosen[start : start + WINDOW]) for start in range(0, len(chosen), WINDOW)]
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for rows in windows])


class OrderedBatches(Sampler[list[Key]]):
    """Every row once, in order, always with the same draw; several processes share the rows.

    Processes that train together must take equally many batches, or they wait for one another for ever: one whose share
    is a row short ends with a row too many, which :func:`share` says is not its own and is not to be counted.
    """

    def __init__(self, size: int, batch_size: int, draw: int = FIRST_VOTE):
        self.size, self.batch_size, self.draw = size, batch_size, draw

    def _rows(self) -> list[int]:
        rows = list(share(self.size))
        most = -(-self.size // place()[1])
        return rows if len(rows) == most else [*rows, 0]

    def __len__(self) -> int:
        return -(-len(self._rows()) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        rows = self._rows()
        for start in range(0, len(rows), self.batch_size):
            yield [(row, self.draw) for row in rows[start : start + self.batch_size]]


def share(size: int) -> range:
    """The rows that this process answers for in an evaluation of so many."""
    rank, processes = place()
    return range(size)[rank::processes]


def node_counts(graphs: Sequence[Data] | NodeBatches) -> list[int]:
    """Nodes of each graph; from where they are stored, if the graphs stay on disk."""
    if isinstance(graphs, NodeBatches):
        return [1] * len(graphs)
    counts = getattr(graphs, "node_counts", None)
    return [int(graph.num_nodes or 0) for graph in graphs] if counts is None else counts.tolist()


def targets_of(graphs: Sequence[Data] | NodeBatches) -> Tensor:
    """The targets [graphs, targets]; from where they are stored, if the graphs stay on disk."""
    if isinstance(graphs, NodeBatches):
        return graphs.targets
    targets = getattr(graphs, "targets", None)
    return torch.cat([graph.y for graph in graphs]) if targets is None else targets


def fair_share(rows: list[int], costs: Sequence[float] | None, rank: int, processes: int) -> list[int]:
    """The part of a batch for one of several processes: numbers of rows differ by at most one, and costs by little.

    Rows from the dearest to the cheapest are dealt out to and fro: 0, 1, 2, 2, 1, 0, 0, 1, ...

    >>> [fair_share([0, 1, 2, 3], [9, 5, 4, 1], rank, 2) for rank in (0, 1)]
    [[0, 3], [1, 2]]
    """
    if costs is None or processes == 1:
        return rows[rank::processes]
    dearest = sorted(rows, key=lambda row: (-costs[row], row))
    turns = (min(at % (2 * processes), 2 * processes - 1 - at % (2 * processes)) for at in range(len(rows)))
    return [row for row, turn in zip(dearest, turns, strict=True) if turn == rank]


def place() -> tuple[int, int]:
    """Rank of this process, and how many train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def loader(
    graphs: Views | NodeBatches,
    batches: EpochBatches | OrderedBatches,
    workers: int = 0,
    structure: Callable[[Batch], Structure] | None = None,
) -> DataLoader:
    """PyG batches of these graphs, each with what ``structure`` tells of it."""
    return DataLoader(
        graphs,
        batch_size=None,
        sampler=batches,
        collate_fn=partial(_joined, structure=structure),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _joined(graphs: list[Data], structure: Callable[[Batch], Structure] | None) -> Batch:
    batch = Batch.from_data_list(graphs)
    if structure is not None:
        batch[KEY] = structure(batch)
    return batch
