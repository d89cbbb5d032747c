import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

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
