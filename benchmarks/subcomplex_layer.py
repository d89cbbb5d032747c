"""One subcomplex layer with the edges of the bag written out, against the same layer on the product of the cells.

    python benchmarks/subcomplex_layer.py [molecules] [width]

Both compute low + inc terms of SCL(0,1) from the same weights, forward and backward; CPU seconds, the best of five.
"""

import sys
import time

import torch
from torch_geometric.data import Batch

from coset.graphs import datasets
from coset.topology import SCL, CellBatch, RingLift
from coset.topology.marking import MarkPairs

RANKS = (0, 1)


def written_out(layer: SCL, x: torch.Tensor, h: list[torch.Tensor], low, inc, rows: int) -> torch.Tensor:
    """The layer on explicit edges between pairs: [source, target, bridge cell] and [source, target]."""
    linear, bridge = layer.messages["low"], layer.bridges["low"]
    weight = torch.cat([linear.weight, bridge.weight], dim=1)
    source, target, between = low
    message = (torch.cat([x[source], h[1][between]], dim=1) @ weight.T + bridge.bias).relu()
    a = x.new_zeros(rows, x.size(1)).index_add(0, target, message)
    p = x.new_zeros(rows, x.size(1)).index_add(0, inc[1], x[inc[0]])
    brought = [layer.mlps["low"](layer.own["low"](x) + a), layer.mlps["inc"](layer.own["inc"](x) + p)]
    return layer.head(torch.cat(brought, dim=1))


def bag_edges(cells: CellBatch):
    """Edges of all copies, and for the point term an edge from (x, t) to every (x, s)."""
    product = cells.pairs(*RANKS)
    relation, bridge = cells.neighbours(0, 1)
    source, target, edge = relation.expand(product, 0)
    x, t = cells.incidence(*RANKS).index
    copies = cells.cells[1].sizes[cells.cells[0].batch[x]]
    entry = torch.repeat_interleave(torch.arange(x.numel()), copies)
    within = torch.arange(entry.numel()) - (copies.cumsum(0) - copies)[entry]
    s = cells.cells[1].ptr[cells.cells[0].batch[x]][entry] + within
    return (source, target, bridge[edge]), (product.rows(x, t)[entry], product.rows(x[entry], s))


def best(function, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def main(molecules: int = 128, width: int = 70) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    graphs = datasets.zinc12k(None).subset("val")[:molecules]
    batch = Batch.from_data_list([MarkPairs(RANKS)(RingLift(18)(graph)) for graph in graphs])
    cells = CellBatch(batch)
    product = cells.pairs(*RANKS)
    low, inc = bag_edges(cells)
    layer = SCL(width, RANKS)
    h = [torch.randn(index.total, width) for index in cells.cells]
    x = torch.randn(product.total, width, requires_grad=True)
    forms = {
        "written out": lambda: written_out(layer, x, h, low, inc, product.total),
        "product": lambda: layer(x, h, cells),
    }
    difference = (forms["written out"]() - forms["product"]()).detach().abs().max()
    print(f"{molecules} molecules, {product.total:,} pairs, width {width}; largest difference {float(difference):.1e}")

    def aggregate(form: str) -> torch.Tensor:
        if form == "product":
            return layer.term("low", x, h, cells, product) + layer.term("inc", x, h, cells, product)
        weight = torch.cat([layer.messages["low"].weight, layer.bridges["low"].weight], dim=1)
        message = (torch.cat([x[low[0]], h[1][low[2]]], dim=1) @ weight.T + layer.bridges["low"].bias).relu()
        return x.new_zeros(x.shape).index_add(0, low[1], message).index_add(0, inc[1], x[inc[0]])

    for form, function in forms.items():
        with torch.no_grad():
            forward, terms = best(function), best(lambda form=form: aggregate(form))
        both = best(lambda function=function: function().sum().backward())
        both_terms = best(lambda form=form: aggregate(form).sum().backward())
        print(
            f"{form:12s} layer: forward {forward:.3f} s, with backward {both:.3f} s; "
            f"messages alone: {terms:.3f} s, {both_terms:.3f} s"
        )
    explicit = sum(t.numel() * 8 for t in (*low, *inc))
    relation, bridge = cells.neighbours(0, 1)
    ours = sum(t.numel() * 8 for t in (relation.index, bridge, cells.incidence(*RANKS).index))
    print(f"index bytes a molecule: written out {explicit / molecules:,.0f}, product {ours / molecules:,.0f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
