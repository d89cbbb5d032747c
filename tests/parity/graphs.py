"""Networks on molecules: Subgraphormer, GNN-SSWL+, CS-GNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from coset import graphs
from coset.graphs.data.molecules import smiles_to_data
from coset.graphs.transforms import ShortestPathDistances, set_clusters
from coset.graphs.transforms.roots import keep_roots

from .differences import Differences, absolute_error
from .reading import ParityFile


def network(file: ParityFile, found: Differences) -> None:
    """Output, layers, gradients and running statistics of one batch."""
    model = file.load(getattr(graphs, file.class_name)(**file.arguments))
    layers = _outputs_of(model.layers)
    y = model(molecules(file))
    found.compare("output", y, file.official("output"))
    rows = file.input("layer_rows") if "input/layer_rows" in file else slice(None)
    for i, x in enumerate(layers):
        if f"official/layer_{i}" in file:
            found.compare("layers", x[rows], file.official(f"layer_{i}"))
    loss = absolute_error(y, file.input("t"))
    found.compare("loss", loss, file.official("loss"))
    loss.backward()
    found.gradients(model)
    found.running_statistics(model)


def molecules(file: ParityFile) -> Batch:
    """The batch; what the official code draws (kept roots, clusters, eigenvectors) is taken from the file.

    Raises:
        AssertionError: A SMILES is read as another graph than the official one.
    """
    sizes = file.input("num_nodes").tolist()
    edges = file.input("num_edges").tolist()
    x, index = file.input("x").split(sizes), file.input("edge_index").split(edges, 1)
    bonds = file.input("edge_attr").split(edges)
    roots = file.input("roots").split(file.input("num_roots").tolist()) if "input/roots" in file else None
    labels = file.input("labels").split(sizes) if "input/labels" in file else None
    made = []
    for i, smiles in enumerate(file.text("smiles")):
        data = Data(x=x[i].clone(), edge_index=index[i], edge_attr=bonds[i].clone(), num_nodes=sizes[i])
        _assert_reads_as(smiles, data)
        data = ShortestPathDistances(5)(data if roots is None else keep_roots(data, roots[i]))
        made.append(data if labels is None else set_clusters(data, labels[i].tolist()))
    batch = Batch.from_data_list(made)
    for name in ("laplacian_eigenvectors", "product_frequencies"):
        if f"input/{name}" in file:
            batch[name] = file.input(name)
    return batch


def _assert_reads_as(smiles: str, data: Data) -> None:
    ours = smiles_to_data(smiles)
    for read, official in (
        (ours.x[:, :1], data.x), (ours.edge_index, data.edge_index), (ours.edge_attr[:, :1], data.edge_attr),
    ):  # fmt: skip
        assert torch.equal(read, official), f"{smiles} is read as another graph"


def _outputs_of(layers: nn.ModuleList) -> list[Tensor]:
    """What each layer gives, filled in by the next forward pass."""
    outputs: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach().clone()))
    return outputs


FAMILIES = {"graph": network}
