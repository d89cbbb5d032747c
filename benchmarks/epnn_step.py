"""A training step of EPNN against the same mathematics in the ordinary way: dense, padded batches and autograd.

Run: python benchmarks/epnn_step.py [folder of ZINC-12k]. 128 molecules, 6 layers of width 96, one thread; process time
of a step (forward and backward), peak memory in processes of their own. Both forms have the same weights, and the same
outputs but for rounding.
"""

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import to_dense_batch

from coset.core.data_files import data_file
from coset.graphs import EPNN
from coset.graphs.data.molecules import ATOM_SIZES, BOND_SIZES, smiles_to_data
from coset.graphs.transforms import Eigenspaces, precompute
from coset.nn import norm_relu_linear


def setup(folder: str | None) -> tuple[EPNN, Batch]:
    smiles = pd.read_csv(data_file("molecules/zinc12k_val.csv", folder))["smiles"][:128]
    graphs = precompute([smiles_to_data(text) for text in smiles], Eigenspaces())
    torch.manual_seed(0)
    return EPNN(1, ATOM_SIZES, BOND_SIZES, width=96, layers=6), Batch.from_data_list(graphs)


def padded(model: EPNN, batch: Batch) -> Tensor:
    """The forward pass on [graphs, n, n, width] tensors, n the size of the largest graph."""
    sizes = batch.ptr.diff().tolist()
    most = max(sizes)
    vectors = torch.zeros(len(sizes), most, most)
    for g, (n, block) in enumerate(zip(sizes, batch.pair_eigenvectors.split([n * n for n in sizes]))):
        vectors[g, :n, :n] = block.view(n, n)
    h = model.encoder(batch.x)
    source, target = batch.edge_index
    graph, start = batch.batch[source], batch.ptr[batch.batch[source]]
    for layer in model.layers:
        phi, _ = to_dense_batch(layer.phi(batch.eigenvalues), batch.batch)
        dense, there = to_dense_batch(h, batch.batch)
        e = torch.einsum("guk,gkc,gvk->guvc", vectors, phi, vectors)
        e = e.index_put((graph, target - start, source - start), layer.edge(batch.edge_attr), accumulate=True)
        messages = (dense.unsqueeze(1) + e).relu() * there[:, None, :, None]
        gathered = messages.sum(2)[there]
        h = torch.relu(layer.norm(layer.mlp((1 + layer.eps) * h + gathered)))
    h = norm_relu_linear(model.out(h), model.out_norm, model.mix)
    rows, there = to_dense_batch(h, batch.batch)
    return model.head(rows.sum(1) / there.sum(1, keepdim=True))


FORMS = {"ours": lambda model, batch: model(batch), "padded": padded}


def measure(name: str, folder: str | None) -> None:
    torch.set_num_threads(1)
    model, batch = setup(folder)
    small = batch.index_select([0, 1])
    FORMS[name](model, Batch.from_data_list(small)).sum().backward()
    before = _peak()
    times = []
    for _ in range(6):
        model.zero_grad()
        started = time.process_time()
        FORMS[name](model, batch).square().mean().backward()
        times.append(time.process_time() - started)
    print(sorted(times[1:])[2], _peak() - before)


def _peak() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        measure(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
        return
    folder = sys.argv[1:2]
    torch.set_num_threads(1)
    model, batch = setup(folder[0] if folder else None)
    torch.testing.assert_close(padded(model.eval(), batch), model(batch), rtol=1e-3, atol=1e-5)
    found = {}
    for name in FORMS:
        command = [sys.executable, __file__, "--one", name, *folder]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = [float(part) for part in run.stdout.split()]
        print(f"{name}: {found[name][0] * 1e3:.0f} ms, {found[name][1]:.0f} MB")
    ratios = [b / a for a, b in zip(found["ours"], found["padded"])]
    print(f"padded / ours: time {ratios[0]:.1f} x, memory {ratios[1]:.1f} x")


if __name__ == "__main__":
    main()
