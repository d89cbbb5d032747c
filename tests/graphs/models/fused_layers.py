"""What tests of layers that are one operation share: the same network, with and without it, on the same graphs."""

import copy

import torch
from torch_geometric.data import Batch, Data

from coset.relations import use_kernels


def random_graphs(dress, count=4, seed=0):
    """Random graphs of 1 to 8 nodes with categories on nodes and edges, the last a single node."""
    generator = torch.Generator().manual_seed(seed)
    graphs = []
    for size in torch.randint(1, 9, (count,), generator=generator).tolist() + [1]:
        forward = torch.triu_indices(size, size, 1)
        forward = forward[:, torch.rand(forward.size(1), generator=generator) < 0.4]
        edge_index = torch.cat([forward, forward.flip(0)], dim=1)
        graph = Data(
            x=torch.randint(3, (size, 2), generator=generator), edge_index=edge_index,
            edge_attr=torch.randint(2, (edge_index.size(1), 1), generator=generator),
        )  # fmt: skip
        graphs.append(dress(graph))
    return Batch.from_data_list(graphs)


def disturbed(made):
    """In float64, no parameter at its start: ones and zeros would hide mistakes."""
    made = made.double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def outcome(made, batch, kernels):
    """Output, gradients and buffers after a step."""
    with use_kernels(kernels):
        out = made(batch)
        (out**2).sum().backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in made.named_parameters()}
    made.zero_grad()
    return {"out": out.detach(), **gradients, **{name: b.clone() for name, b in made.named_buffers()}}


def assert_same_outcome(found, wanted):
    for name in wanted:
        torch.testing.assert_close(
            found[name], wanted[name], rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )


def check_two_passes_alive(made, first, second):
    """The gradient of one pass is right though another ran in between."""
    alone = outcome(made, first, True)
    out = made(first)
    made(second).sum().backward()
    made.zero_grad()
    (out**2).sum().backward()
    for name, parameter in made.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, alone[name])


def check_change_in_place(made, batch):
    """The second layer must not take its input for the untouched output of the first."""
    changed, doubled = copy.deepcopy(made), copy.deepcopy(made)
    changed.layers[0].register_forward_hook(lambda module, inputs, output: output.mul_(2))
    doubled.layers[0].register_forward_hook(lambda module, inputs, output: output * 2)
    assert_same_outcome(outcome(changed, batch, True), outcome(doubled, batch, False))
