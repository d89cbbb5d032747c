import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, SimpleConv

from coset.core.errors import CosetError
from coset.symmetry import check_equivariance
from coset.weights.asymmetric.asymmetrize import asymmetries, asymmetrize, deasymmetrize
from coset.weights.asymmetric.networks import GraphNetwork, ResNet, mlp, seeded
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec, permute, surviving_symmetries
from coset.weights.permutations.matching import activation_matching

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Linear(7, 16), nn.Parameter(torch.randn(1, 5, 16))
        self.norm, self.attend = nn.LayerNorm(16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.block = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, dropout=0.0, norm_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.embed(x) + self.position
        y = self.norm(x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        return self.head(self.block(x))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.depth = (
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
        )
        self.other, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)
        self.linear, self.head = nn.Linear(6 * 9, 12), nn.Linear(12 + 4, 2)

    def forward(self, x):
        y = self.pool(self.depth(self.norm(self.conv(x)).relu()))
        z = self.other(x).mean((2, 3))
        return self.head(torch.cat([torch.tanh(self.linear(torch.flatten(y, 1))), z], 1))


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = GCNConv(5, 8), SAGEConv(8, 12)
        self.c = GINConv(nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 10)))
        self.d = GATConv(10, 4, heads=2)

    def forward(self, x, edges):
        return self.d(self.c(self.b(self.a(x, edges).relu(), edges).relu(), edges), edges)


NETWORKS = {
    "mlp": (lambda: mlp([8, 6, 5, 3]), (torch.randn(4, 8),), [6, 5]),
    "resnet": (lambda: ResNet(4, 2), (torch.randn(2, 3, 12, 12),), [4, 4, 4, 8, 8, 8, 16, 16, 16]),
    "graph network": (lambda: GraphNetwork(5, 6, 3, EDGES), (torch.randn(5, 5),), [6, 6, 6]),
    "transformer": (Transformer, (torch.randn(4, 5, 7),), [16] + [4] * 8 + [8] * 4 + [24]),
    "convolutional": (Convolutional, (torch.randn(3, 3, 8, 8),), [6, 4, 12]),
    "PyG": (Graph, (torch.randn(5, 5), EDGES), [8, 12, 9]),  # what GATConv reads stays as it is
}


@pytest.mark.parametrize("name", NETWORKS)
def test_functions_do_not_change_when_neurons_are_permuted(name):
    build, inputs, sizes = NETWORKS[name]
    model = build().double().eval()
    spec = permutation_spec(model)
    assert [group.size for group in spec.groups] == sizes
    x = tuple(v.double() if v.is_floating_point() else v for v in inputs)
    state = {
        k: v + 0.1 * torch.randn_like(v).abs() if v.is_floating_point() else v for k, v in model.state_dict().items()
    }
    report = check_equivariance(lambda s: functional_call(model, s, x), state, NeuronPermutation(spec))
    assert report.passed, report
    assert report.moved == report.trials


@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_copy_is_recovered_from_its_activations(name):
    build, inputs, _ = NETWORKS[name]
    model = build().double().eval()
    spec, state = permutation_spec(model), dict(model.state_dict())
    orders = NeuronPermutation(spec).sample(state, torch.Generator().manual_seed(0))
    moved = permute(spec, state, orders)
    x = tuple(v.double() if v.is_floating_point() else v for v in inputs)
    found = activation_matching(spec, model, state, moved, x)
    for group in spec.groups:
        wanted = orders[group.name].argsort() if group.modules else torch.arange(group.size)
        # Neurons of the residual stream are told apart by a sum over several layers, all others by one.
        assert torch.equal(found[group.name], wanted), group.name
    back = permute(spec, moved, found)
    torch.testing.assert_close(functional_call(model, back, x), functional_call(model, state, x))


@pytest.mark.parametrize("name", NETWORKS)
def test_fixed_entries_in_every_kind_of_layer(name):
    build, inputs, _ = NETWORKS[name]
    model = seeded(lambda: ResNet(8, 1) if name == "resnet" else build(), 0).double().eval()
    twin = asymmetrize(model, n_fix=0.4, kappa=2, seed=1, skip=("",)).eval()  # "": positions are the model's own
    spec = permutation_spec(model)
    named = {layer.name for layer in asymmetries(twin)}
    assert {use.parameter for group in spec.groups for use in group.uses if _matrix(model, use.parameter)} <= named
    assert surviving_symmetries(twin, spec) == []
    x = tuple(v.double() if v.is_floating_point() else v for v in inputs)
    plain = deasymmetrize(twin).eval()
    torch.testing.assert_close(plain(*x), twin(*x))
    moved = dict(
        plain.state_dict()
    )  # the plain network has the symmetries of its architecture: only the family lost them
    assert check_equivariance(lambda s: functional_call(plain, s, x), moved, NeuronPermutation(spec)).passed


def _matrix(model: nn.Module, name: str) -> bool:
    parameter = dict(model.named_parameters()).get(name)
    kinds = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
    owner = model.get_submodule(name.rpartition(".")[0])
    return parameter is not None and parameter.dim() > 1 and isinstance(owner, kinds)


def test_every_axis_of_a_residual_network_is_moved_once():
    model = ResNet(4, 2)
    uses = [(use.parameter, use.axis) for group in permutation_spec(model).groups for use in group.uses]
    assert len(uses) == len(set(uses))
    wanted = set()
    for name, parameter in model.named_parameters():
        wanted |= {(name, axis) for axis in range(min(2, parameter.dim()))}
    wanted -= {("conv.weight", 1), ("linear.weight", 0), ("linear.bias", 0)}  # inputs and outputs
    assert set(uses) == wanted


def test_elements_form_a_group():
    model = mlp([8, 6, 5, 3])
    action = NeuronPermutation(permutation_spec(model))
    state = dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    g, h = action.sample(state, generator), action.sample(state, generator)
    together, after = action.apply(action.compose(g, h), state), action.apply(g, action.apply(h, state))
    back = action.undo(g, action.apply(g, state))
    assert all(torch.equal(together[k], after[k]) and torch.equal(back[k], state[k]) for k in state)


def test_gates_pin_neurons():
    model = asymmetrize(mlp([8, 6, 5, 3]), "sigma", example=(torch.randn(1, 8),))
    assert len(permutation_spec(model)) == 0


def test_what_is_not_understood_is_pinned():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.c(self.b(torch.cumsum(self.a(x), 1)).relu())

    assert [group.name for group in permutation_spec(Sorted()).groups] == ["b"]


class Network(nn.Module):
    """Layers, and a function of them and an input."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


class Reversing(nn.ReLU):
    def forward(self, x):
        return x.relu().flip(-1)


def tied(run, **parts):
    model = Network(run, a=nn.Linear(8, 8), b=nn.Linear(8, 8), **parts)
    model.b.weight = model.a.weight
    return model


def two_names(run, **parts):
    model = Network(run, a=nn.Linear(8, 8), **parts)
    model.b = model.a
    return model


def buffered(run, **parts):
    model = Network(run, **parts)
    model.register_buffer("scale", torch.linspace(1, 2, 8))
    return model


def with_embedding_as_head(run, **parts):
    model = Network(run, embed=nn.Embedding(10, 8), head=nn.Linear(8, 10, bias=False), **parts)
    model.head.weight = model.embed.weight
    return model


def linear(outputs=8, inputs=8):
    return nn.Linear(inputs, outputs)


def conv(outputs=8, inputs=2, **more):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **more)


def hidden(change):
    """A change of the hidden layer of a network of two layers."""
    return Network(lambda s, x: s.c(torch.relu(change(s.a(x)))), a=linear(), c=linear(3))


def encoder(**options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0, **options)
    return Network(lambda s, x: s.c(s.e(s.a(x))), a=linear(), e=layer, c=linear(3))


def graph(layer, outputs=8):
    edges = EDGES[:, EDGES[1].argsort()]
    return Network(lambda s, x: s.c(s.g(s.a(x).relu(), edges).relu()), a=linear(), g=layer, c=linear(3, outputs))


ROWS, TOKENS, PICTURES = torch.randn(5, 8), torch.randn(3, 8, 8), torch.randn(3, 2, 8, 8)
HEADS = [4] * 4
CASES = {
    # A layer more than once: what reads and makes its neurons moves together.
    "layer three times": (
        Network(lambda s, x: s.c(s.h(s.h(s.h(s.a(x)).relu()).relu())), a=linear(), h=linear(), c=linear(3)), ROWS, [8]),
    "head on two branches": (
        Network(lambda s, x: s.h(s.a(x).relu()) + s.h(s.b(x).relu()), a=linear(), b=linear(), h=linear(3)), ROWS, [8]),
    "output twice in a concatenation": (
        Network(lambda s, x: s.c(torch.cat([s.a(x), s.a(2 * x)], -1)), a=linear(), c=linear(3, 16)), ROWS, [8]),
    "layer on input and hidden": (
        Network(lambda s, x: s.c(s.h(s.h(x).relu())), h=linear(), c=linear(3)), ROWS, []),
    "norm on input and hidden": (
        Network(lambda s, x: s.c(s.n(s.a(s.n(x)))), n=nn.LayerNorm(8), a=linear(), c=linear(3)), ROWS, []),
    "depthwise on input and hidden": (
        Network(lambda s, x: s.c(s.d(s.a(s.d(x))).mean((2, 3))), d=conv(inputs=8, groups=8), a=conv(inputs=8),
                c=linear(3)), torch.randn(3, 8, 8, 8), []),
    "head that divides its columns otherwise": (
        Network(lambda s, x: s.h(torch.cat([s.a(x), s.b(x)], 1)) + s.h(s.d(x)), a=linear(4), b=linear(4), d=linear(),
                h=linear(3)), ROWS, []),
    "attention twice": (
        Network(lambda s, x: s.c(s.m(*[s.m(*[s.a(x)] * 3)[0]] * 3)[0]), a=linear(), c=linear(3),
                m=nn.MultiheadAttention(8, 2, batch_first=True)), TOKENS, [8, *HEADS]),
    "parameter twice": (
        Network(lambda s, x: s.c(s.p * s.b(s.a(x) + s.p)), a=linear(), b=linear(), c=linear(3),
                p=nn.Parameter(torch.randn(8))), ROWS, [8]),
    "tied weights": (
        tied(lambda s, x: s.c(s.b(s.d(x)).relu()) + s.e(s.a(x)), d=linear(), c=linear(3), e=linear(3)), ROWS, [8]),
    "module under two names": (two_names(lambda s, x: s.c(s.b(x).relu()), c=linear(3)), ROWS, [8]),
    "weight in an autoencoder": (
        Network(lambda s, x: functional.linear(s.a(x), s.a.weight.t()), a=linear(7)), ROWS, []),
    "weight read elsewhere": (
        Network(lambda s, x: s.c(s.a(x)) + functional.linear(x, s.a.weight)[:, :3], a=linear(), c=linear(3)), ROWS, []),
    "bias read elsewhere": (
        Network(lambda s, x: s.c(s.a(x)) + s.d(x + s.a.bias), a=linear(), c=linear(3), d=linear(3)), ROWS, []),
    "type of a weight": (
        Network(lambda s, x: s.c(s.a(x.to(s.a.weight.dtype))), a=linear(7), c=linear(3, 7)), ROWS, [7]),
    "embedding as a hidden layer": (
        with_embedding_as_head(lambda s, x: s.c(s.head(s.a(s.embed(x))).relu()), a=linear(), c=linear(3, 10)),
        torch.arange(10), [8]),
    # Axes that are not those of channels, though they may be as long.
    "average of neighbours": (hidden(lambda h: functional.avg_pool1d(h, 3, 1, 1)), ROWS, []),
    "module that pools tokens": (nn.Sequential(linear(), nn.MaxPool1d(3, 1, 1), linear(3)), TOKENS, []),
    "pools of pictures on rows of conv1d": (
        Network(lambda s, x: s.c(s.p(s.a(x)).flatten(1)), a=nn.Conv1d(2, 8, 3, padding=1), p=nn.MaxPool2d(3, 1, 1),
                c=linear(3, 64)), torch.randn(3, 2, 8), []),
    "mean over rows of a picture": (
        Network(lambda s, x: s.c(s.a(x).mean(2)), a=conv(), c=linear(3)), PICTURES, []),
    "mean over columns, flattened": (
        Network(lambda s, x: s.c(s.a(x).mean(-1).flatten(1)), a=conv(), c=linear(3, 64)), PICTURES, [8]),
    "flattened in part": (Network(lambda s, x: s.c(s.a(x).flatten(1, 2)), a=conv(), c=linear(3)), PICTURES, []),
    "module that flattens in part": (
        Network(lambda s, x: s.c(s.f(s.a(x))), a=conv(), f=nn.Flatten(1, 2), c=linear(3)), PICTURES, []),
    "viewed by batch": (
        Network(lambda s, x: s.c(s.a(x).view(x.size(0), -1)), a=conv(), c=linear(3, 512)), PICTURES, [8]),
    "viewed by something else": (
        Network(lambda s, x: s.c(s.a(x).view(x.size(1) * 12, -1)), a=conv(), c=linear(3, 64)), PICTURES, []),
    "norm behind flattening": (
        Network(lambda s, x: s.c(s.n(s.a(x).flatten(1))), a=conv(), n=nn.BatchNorm1d(512), c=linear(3, 512)),
        PICTURES, [8]),
    "convolution over features": (
        Network(lambda s, x: s.c(s.a(x)).mean(2), a=linear(), c=nn.Conv1d(8, 3, 1)), TOKENS, []),
    "batch norm over tokens": (
        Network(lambda s, x: s.c(s.n(s.a(x))), a=linear(), n=nn.BatchNorm1d(8), c=linear(3)), TOKENS, []),
    "instance norm without a batch": (
        Network(lambda s, x: s.c(s.n(s.a(x))), a=linear(), n=nn.InstanceNorm1d(8, affine=True), c=linear(3)),
        torch.randn(8, 8), []),
    "convolution without a batch": (
        Network(lambda s, x: s.c(s.a(x[0]).flatten(1)), a=conv(), c=linear(3, 64)), PICTURES, []),
    "attention over a convolution": (
        Network(lambda s, x: s.m(*[s.a(x)] * 3)[0], a=nn.Conv1d(2, 8, 3, padding=1),
                m=nn.MultiheadAttention(8, 2, batch_first=True)), torch.randn(3, 2, 8), HEADS),
    # What mixes or orders the neurons, or tells them apart.
    "softmax": (hidden(lambda h: h.softmax(-1)), ROWS, []),
    "log softmax": (hidden(lambda h: functional.log_softmax(h, 1)), ROWS, []),
    "sorted": (hidden(lambda h: h.sort(-1)[0]), ROWS, []),
    "largest": (hidden(lambda h: h * h.argmax(1, keepdim=True)), ROWS, []),
    "chunks": (hidden(lambda h: torch.cat(h.chunk(2, -1)[::-1], -1)), ROWS, []),
    "split": (hidden(lambda h: torch.cat([h.split(4, -1)[1], h.split(4, -1)[0]], -1)), ROWS, []),
    "gated": (Network(lambda s, x: s.c(functional.glu(s.a(x))), a=linear(), c=linear(3, 4)), ROWS, []),
    "heads of one's own": (hidden(lambda h: h.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8)), ROWS, []),
    "padded": (hidden(lambda h: functional.pad(h, (1, -1))), ROWS, []),
    "indexed": (hidden(lambda h: h[:, [1, 0, 2, 3, 4, 5, 6, 7]]), ROWS, []),
    "einsum": (hidden(lambda h: torch.einsum("bi,bj->bi", h, h.cumsum(1))), ROWS, []),
    "transposed": (Network(lambda s, x: s.c(s.w(s.a(x).T).T), a=linear(), w=linear(5, 5), c=linear(3)), ROWS, []),
    "divided by constants": (
        buffered(lambda s, x: s.c(s.a(x) / s.scale), a=linear(), c=linear(3)), ROWS, []),
    "written over": (
        Network(lambda s, x: (torch.add(s.a(x), s.b(x), out=(o := s.d(x))), s.c(o))[1], a=linear(), b=linear(),
                d=linear(), c=linear(3)), ROWS, []),
    "activation of one's own": (nn.Sequential(linear(), Reversing(), linear(3)), ROWS, []),
    "encoder": (encoder(activation=functional.silu), TOKENS, [8, *HEADS, 16]),
    "encoder that sums over its features": (encoder(activation=lambda h: h.cumsum(-1)), TOKENS, [8, *HEADS]),
    "LSTM over neighbours": (graph(SAGEConv(8, 8, aggr="lstm")), ROWS, []),
    "projection before the neighbours": (graph(SAGEConv(8, 8, project=True)), ROWS, []),
    "own beside neighbours": (graph(SimpleConv(combine_root="cat"), 16), ROWS, []),
    "pair of inputs": (
        Network(lambda s, x: s.c(s.g((s.a(x), x), EDGES)), a=linear(), g=SAGEConv(8, 8), c=linear(3)), ROWS, [8]),
    # The same calls by keyword.
    "keywords": (
        Network(lambda s, x: s.c(input=torch.relu(input=torch.add(s.a(input=x), other=s.b(x)))), a=linear(), b=linear(),
                c=linear(3)), ROWS, [8]),
    "concatenation by keyword": (
        Network(lambda s, x: s.c(torch.cat(tensors=[s.a(x), s.b(x)], dim=1)), a=linear(), b=linear(5), c=linear(3, 13)),
        ROWS, [8, 5]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_groups_of_unusual_networks(name):
    model, x, sizes = CASES[name]
    model = model.double().eval()
    for value in model.state_dict().values():
        if value.dim() == 1 and value.is_floating_point():
            value.uniform_(0.5, 2)  # norms that tell their channels apart
    x = x.double() if x.is_floating_point() else x
    spec = permutation_spec(model, (x,))
    assert [group.size for group in spec.groups] == sizes
    if not sizes:
        return
    action, state = NeuronPermutation(spec), {name: value.clone() for name, value in model.state_dict().items()}
    before = model(x)
    model.load_state_dict(action.apply(action.sample(state, torch.Generator().manual_seed(0)), state))
    assert not all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(model(x), before)


def test_groups_without_an_example_of_inputs():
    """What a graph alone tells; rows of BatchNorm and batches of convolutions are taken for granted."""
    granted = {"batch norm over tokens", "convolution without a batch"}
    for name, (model, _, sizes) in CASES.items():
        found = [group.size for group in permutation_spec(model.eval()).groups]
        if name in granted:
            assert found == [8]
        else:
            assert not set(found) - set(sizes), name


def test_networks_that_cannot_be_traced():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(CosetError, match="forward of Branching cannot be traced"):
        permutation_spec(Branching())
    with pytest.raises(CosetError, match="Linear is a single layer"):
        permutation_spec(nn.Linear(2, 3))


def two_layers(first: list[list[float]], trained: float = 1.0) -> tuple[nn.Module, list[tuple[int, ...]]]:
    """A network 2-3-2 with given fixed entries (nan: trained) in its first layer; permutations that keep them."""
    from torch.nn.utils import parametrize

    from coset.weights.layers.fixed_entries import FixedEntries

    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    values = torch.tensor(first)
    index = (~values.isnan()).flatten().nonzero().flatten()
    parametrize.register_parametrization(model[0], "weight", FixedEntries(index, values.flatten()[index]))
    kept = [
        p
        for p in itertools.permutations(range(3))
        if torch.equal(values[list(p)].nan_to_num(99), values.nan_to_num(99))
    ]
    return model, kept


@pytest.mark.parametrize(
    ("rows", "survive"),
    [
        ([[0, torch.nan], [0, torch.nan], [torch.nan, 0]], True),  # two rows alike: they can be swapped
        ([[0, torch.nan], [torch.nan, 0], [0, 0]], False),
        ([[1, torch.nan], [2, torch.nan], [torch.nan, 0]], False),  # alike in position, not in value
    ],
)
def test_permutations_that_fixed_entries_leave(rows, survive):
    model, kept = two_layers(rows)
    assert (len(kept) > 1) == survive
    assert bool(surviving_symmetries(model, permutation_spec(model))) == survive


def test_asymmetrized_networks_have_no_symmetry_left():
    for model in (mlp([8, 6, 5, 3]), ResNet(8, 2)):
        spec = permutation_spec(model)
        assert surviving_symmetries(model, spec) == [group.name for group in spec.groups]
        assert surviving_symmetries(asymmetrize(model), spec) == []
    only_last = asymmetrize(mlp([8, 6, 5, 3]), n_fix=4, skip=("0", "3"))
    assert surviving_symmetries(only_last, permutation_spec(only_last)) == ["0"]  # one end is enough


def test_permuting_an_asymmetric_network_leaves_its_family():
    model = asymmetrize(mlp([8, 6, 5, 3]))
    spec = permutation_spec(model)
    plain = {"0.weight": model[0].weight.detach(), "0.bias": model[0].bias, "1.weight": model[1].weight,
             "1.bias": model[1].bias, "3.weight": model[3].weight.detach()}  # fmt: skip
    orders = {"0": torch.tensor([1, 0, 2, 3, 4, 5])}
    fixed = model[0].parametrizations.weight[0]
    moved = permute(spec, plain, orders)["0.weight"]
    assert torch.equal(plain["0.weight"].flatten()[fixed.index], fixed.values)
    assert not torch.equal(moved.flatten()[fixed.index], fixed.values)


@pytest.mark.parametrize(("kappa", "leaves"), [(1.0, True), (0.0, False)])
def test_scaling_leaves_the_family_where_a_fixed_entry_is_not_zero(kappa, leaves):
    with pytest.warns(UserWarning, match="kappa") if kappa == 0 else torch.no_grad():
        model = asymmetrize(mlp([8, 6, 3], norm=False, activation=nn.ReLU), n_fix=2, kappa=kappa)
    weight, fixed = model[0].weight.detach().clone(), model[0].parametrizations.weight[0]
    x = torch.randn(4, 8)
    plain = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    plain[0].weight.data, plain[2].weight.data = weight.clone(), model[2].weight.detach().clone()
    before = plain(x)
    plain[0].weight.data[0] *= 2
    plain[0].bias.data[0] *= 2
    plain[2].weight.data[:, 0] /= 2
    torch.testing.assert_close(plain(x), before)
    assert torch.equal(plain[0].weight.flatten()[fixed.index], fixed.values) != leaves


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()])
def test_pairs_of_neurons_make_a_linear_map(activation):
    # A eta(B x) = W x for eta(x) - eta(-x) = x: the building block of universality.
    w = torch.randn(3, 5, dtype=torch.float64)
    b = torch.stack([w, -w], 1).flatten(0, 1)
    a = torch.kron(torch.eye(3, dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    x = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(a @ activation(b @ x), w @ x, atol=1e-6, rtol=1e-6)
