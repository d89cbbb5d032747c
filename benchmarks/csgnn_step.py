"""A training step of CS-GNN and of GNN-SSWL+ against the same mathematics in the ordinary PyG way.

Run: python benchmarks/csgnn_step.py [--case "CS-GNN, 5 sets"] [--graphs 128] [--data FILE]. Molecules of ZINC, 6 layers
of width 96, bond features, one thread; process time of a step (forward and backward; the better of two), peak memory in
processes of their own, and the bytes of what says how pairs hang together. The peer lays out the edges of the product
graph, their features and the orbit of every pair in memory once (not timed), and every layer runs two ``GINEConv`` on
them. Both have the same weights, and the same outputs but for rounding.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import GINEConv, global_add_pool

from coset.core.data_files import data_file
from coset.graphs import CSGNN, GNNSSWLPlus
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.models.bags import BagGraph
from coset.graphs.models.product import PairGraph
from coset.graphs.transforms import Coarsen, ShortestPathDistances, precompute
from coset.relations import broadcast, marginalise

WIDTH, LAYERS = 96, 6
CASES = {"CS-GNN, 5 sets": 5, "CS-GNN, a set a node": None, "GNN-SSWL+": None}


def setup(case: str, count: int, file: str | None) -> tuple[nn.Module, Batch]:
    smiles = pd.read_csv(data_file("molecules/zinc12k_val.csv", file))["smiles"][:count]
    graphs = precompute([smiles_to_data(text) for text in smiles], ShortestPathDistances())
    if (size := CASES[case]) is not None:
        graphs = [Coarsen("spectral", size)(graph) for graph in graphs]
    torch.manual_seed(0)
    kind = GNNSSWLPlus if case == "GNN-SSWL+" else CSGNN
    return kind(1, ATOM_SIZES, BOND_SIZES, width=WIDTH, layers=LAYERS), Batch.from_data_list(graphs)


class Peer(nn.Module):
    """The same network on explicit product edges."""

    def __init__(self, model: nn.Module, batch: Batch):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.bags = isinstance(model, CSGNN)
        graph = BagGraph.from_batch(batch) if self.bags else PairGraph.from_batch(batch)
        self.graph = graph
        _, right = graph.pairs.coordinates
        self.structure: dict[str, Tensor] = {}
        for name, relation, along in (("internal", graph.internal, 1), ("external", graph.external, 0)):
            source, target, edge = relation.expand(graph.pairs, along)
            if along == 0 and graph.external_edges is not None:
                edge = graph.external_edges[edge]
            self.structure[name] = torch.stack([source, target])
            self.structure[f"{name} features"] = graph.edge_features[edge]
        self.convs = nn.ModuleList(
            nn.ModuleList(gine(term) for term in list(layer.gather.values())[:2]) for layer in self.model.layers
        )
        self.structure["graph of pair"] = batch.batch[right]
        if self.bags:
            orbits, orbit_of = graph.orbits
            self.structure["own row"] = graph.own_rows[right]
            self.structure["orbit"] = orbits[orbit_of]
        else:
            self.structure["own row"] = graph.diagonal[right]

    def _point(self, point: nn.Module, x: Tensor) -> Tensor:
        seen = x[self.structure["own row"]]
        if self.bags:
            seen = perceptron(point.coupling, seen + point.orbit_vectors(self.structure["orbit"]))
        return perceptron(point.mlp, (1 + point.eps) * x + seen)

    def forward(self, batch: Batch) -> Tensor:
        x = self.model.encoder(batch, self.graph)
        for layer, convs in zip(self.model.layers, self.convs):
            terms = list(layer.gather.values())
            total = self._point(terms[2], x)
            for name, term, conv in zip(("internal", "external"), terms, convs):
                features = term.encode_edges(self.structure[f"{name} features"])
                total = total + conv(x, self.structure[name], features)
            x = torch.relu(layer.norm(total))
        if self.bags:
            pooled = global_add_pool(x, self.structure["graph of pair"])
            return self.model.head(pooled / self.graph.sets.sizes.unsqueeze(1))
        model, pairs = self.model, self.graph.pairs
        rows = broadcast((1 + model.eps) * marginalise(x, pairs, along=1), pairs, along=1)
        rows = torch.relu(model.copy_norm(perceptron(model.copy_mlp, rows)))
        count = (self.graph.roots.sizes * self.graph.nodes.sizes).unsqueeze(1)
        return model.head(global_add_pool(rows, self.structure["graph of pair"]) / count)


def gine(term: nn.Module) -> GINEConv:
    """PyG's layer with the weights of a term; it draws its own when it is made."""
    mlp = copy.deepcopy(term.mlp)
    conv = GINEConv(nn.Sequential(mlp.first, mlp.norm, nn.ReLU(), mlp.second), train_eps=True)
    conv.nn.load_state_dict(nn.Sequential(term.mlp.first, term.mlp.norm, nn.ReLU(), term.mlp.second).state_dict())
    conv.eps = nn.Parameter(term.eps.detach().clone())
    return conv


def perceptron(mlp: nn.Module, x: Tensor) -> Tensor:
    return mlp.second(torch.relu(mlp.norm(mlp.first(x))))


def measure(case: str, side: str, count: int, file: str | None) -> None:
    torch.set_num_threads(1)
    model, batch = setup(case, count, file)
    network = model if side == "ours" else Peer(model, batch)
    small = Batch.from_data_list(batch.index_select([0, 1]))
    model(small).sum().backward()  # compiles the kernels
    before, times = _peak(), []
    for _ in range(3):
        network.zero_grad()
        started = time.process_time()
        network(batch).square().mean().backward()
        times.append(time.process_time() - started)
    print(json.dumps([min(times[1:]), _peak() - before]))


def check(case: str, count: int, file: str | None) -> None:
    """Both give the same outputs, in float64 on a few molecules; then the size of what joins the pairs of the batch."""
    model, batch = setup(case, count, file)
    few = Batch.from_data_list(batch.index_select(list(range(8))))
    exact, peer = model.double(), Peer(model, few).double()
    with torch.no_grad():
        found, wanted = exact(few), peer(few)
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    peer = Peer(model, batch)
    explicit = sum(tensor.nbytes for tensor in peer.structure.values())
    graph = BagGraph.from_batch(batch) if isinstance(model, CSGNN) else PairGraph.from_batch(batch)
    exact.float()(batch)  # fills in what is computed on first use
    implicit = graph.internal.index.nbytes + graph.edge_features.nbytes
    if isinstance(graph, BagGraph):
        implicit += graph.external.index.nbytes + graph.external_edges.nbytes
        implicit += graph.member_set.nbytes + graph.member_node.nbytes + graph.orbits[1].nbytes
    print(json.dumps([difference, implicit / 2**20, explicit / 2**20]))


def _peak() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


PARTS = {
    "check": check,
    "ours": lambda case, count, file: measure(case, "ours", count, file),
    "peer": lambda case, count, file: measure(case, "peer", count, file),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--graphs", type=int, default=128, help="number of molecules")
    parser.add_argument("--data", help="zinc12k_val.csv, by default looked for in COSET_DATA")
    parser.add_argument("--part", choices=PARTS, help="run one part of a case in this process")
    options = parser.parse_args()
    if options.part:
        PARTS[options.part](options.case, options.graphs, options.data)
        return
    for case in [options.case] if options.case else CASES:
        found = {}
        for part in PARTS:
            command = [sys.executable, __file__, "--case", case, "--part", part, f"--graphs={options.graphs}"]
            command += ["--data", options.data] if options.data else []
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[part] = json.loads(run.stdout)
        (seconds, memory), (peer_seconds, peer_memory) = found["ours"], found["peer"]
        difference, implicit, explicit = found["check"]
        print(
            f"{case}: {seconds:.2f} s, {memory:.0f} MB against {peer_seconds:.2f} s, {peer_memory:.0f} MB: "
            f"{peer_seconds / seconds:.1f} x and {peer_memory / memory:.1f} x; structure {implicit:.2f} against "
            f"{explicit:.1f} MB; outputs differ by {difference:.0e} in float64",
            flush=True,
        )


if __name__ == "__main__":
    main()
