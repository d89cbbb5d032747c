"""The layer as one operation, held to the layer made of its parts."""

import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

from coset.graphs import Subgraphormer, attention_block
from coset.graphs.transforms import ProductPositionalEncoding, SampleRoots, ShortestPathDistances
from coset.relations import use_kernels

D = torch.float64


def random_graphs(count=4, seed=0, fraction=None):
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
        graph = ProductPositionalEncoding(8)(ShortestPathDistances()(graph))
        graphs.append(graph if fraction is None else SampleRoots(fraction=fraction, seed=seed)(graph))
    batch = Batch.from_data_list(graphs)
    batch.laplacian_eigenvectors = batch.laplacian_eigenvectors.double()
    return batch


def model(edges=True, **options):
    torch.manual_seed(0)
    made = Subgraphormer(
        2, [3, 3], [2] if edges else None, **{"width": 48, "layers": 2, "positional_encoding": 8} | options
    ).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def outcome(made, batch, kernels):
    with use_kernels(kernels):
        out = made(batch)
        (out**2).sum().backward()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in made.named_parameters()}
    made.zero_grad()
    return {"out": out.detach(), **gradients, **{name: b.clone() for name, b in made.named_buffers()}}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edges": False},
        {"residual": True},
        {"marking": "none"},
        {"marking": "root", "level": "pair"},
        {"heads": 2},
        {"width": 32},
    ],
)
@pytest.mark.parametrize("fraction", [None, 0.5])
def test_equals_the_layer_made_of_its_parts(training, options, fraction):
    fast = model(**options).train(training)
    parts, batch = copy.deepcopy(fast), random_graphs(fraction=fraction)
    found, wanted = outcome(fast, batch, True), outcome(parts, batch, False)
    for name in wanted:
        torch.testing.assert_close(
            found[name], wanted[name], rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_it_is_used_where_it_applies_and_only_there():
    batch = random_graphs()
    made = model()
    x, _ = made.pair_features(batch)
    assert x.grad_fn.name() == "_AttentionBlockBackward"
    for other in (model(attention="gatv2"), model(linear=True), model(relations=("uL", "vL"))):
        assert not attention_block.applies(other.layers[0], x)
    assert not attention_block.applies(made.layers[0], x.float())
    made.layers[0].norm.eval()
    assert not attention_block.applies(made.layers[0], x)


def test_two_forward_passes_may_be_alive_at_once():
    made = model().eval()
    first, second = random_graphs(seed=1), random_graphs(seed=2)
    alone = outcome(made, first, True)
    out = made(first)
    made(second).sum().backward()
    made.zero_grad()
    (out**2).sum().backward()
    for name, parameter in made.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, alone[name])


def test_a_change_in_place_between_layers_is_seen():
    """The second layer must not take its input for the untouched output of the first."""
    batch = random_graphs()
    changed, doubled = model().eval(), model().eval()
    changed.layers[0].register_forward_hook(lambda module, inputs, output: output.mul_(2))
    doubled.layers[0].register_forward_hook(lambda module, inputs, output: output * 2)
    found, wanted = outcome(changed, batch, True), outcome(doubled, batch, False)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-8, atol=1e-9)


def test_inference_mode_gives_the_same():
    made, batch = model().eval(), random_graphs()
    with torch.inference_mode():
        found = made(batch)
    torch.testing.assert_close(found, made(batch).detach())


def test_gradcheck_of_the_operation():
    batch, made = random_graphs(2, seed=3), model().eval()
    made.layers[0].norm.train(False)
    x, graph = made.pair_features(batch)
    x = x.detach().requires_grad_()
    block = made.layers[0]
    assert attention_block.applies(block, x)
    assert torch.autograd.gradcheck(lambda x: attention_block.attention_block(block, x, graph), (x,), fast_mode=True)
