import itertools
import math
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrize
from torch_geometric.nn import GCNConv

from coset.core.errors import CosetError
from coset.weights.asymmetric.asymmetrize import (
    asymmetries,
    asymmetrize,
    deasymmetrize,
    fingerprint,
    trainable_masks,
    trainable_parameters,
)
from coset.weights.asymmetric.networks import ResNet, mlp, parameter_count
from coset.weights.layers.figlu import FiGLU, jacobian, permutation_equivariances
from coset.weights.layers.fixed_entries import FixedEntries, densest_subsets, fixed_entries, random_subsets


def fixed_linear() -> nn.Linear:
    """W = [[1, 2], [3, 4]], M = [[1, 0], [0, 1]], F = [[9, 5], [7, 9]], no bias."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    parametrize.register_parametrization(layer, "weight", FixedEntries(torch.tensor([1, 2]), torch.tensor([5.0, 7.0])))
    return layer


def test_a_linear_map_with_fixed_entries_by_hand():
    layer = fixed_linear()
    assert layer.weight.tolist() == [[1, 5], [7, 4]]
    assert layer(torch.ones(2)).tolist() == [6, 11]


def test_no_gradient_and_no_decay_reach_fixed_entries():
    layer = fixed_linear()
    layer(torch.randn(8, 2)).square().sum().backward()
    gradient = layer.parametrizations.weight.original.grad
    assert gradient[0, 1] == gradient[1, 0] == 0
    assert gradient[0, 0] != 0
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        layer(torch.randn(8, 2)).square().sum().backward()
        optimizer.step()
    assert layer.weight[0, 1] == 5
    assert layer.weight[1, 0] == 7
    assert layer.weight[0, 0] != 1


def test_gradients_in_double_precision():
    layer = fixed_linear().double()
    x = torch.randn(3, 2, dtype=torch.float64)

    def run(weight):
        return torch.func.functional_call(layer, {"parametrizations.weight.original": weight}, (x,))

    assert torch.autograd.gradcheck(run, torch.randn(2, 2, dtype=torch.float64, requires_grad=True))


PAPER_MLP = {"n_fix": [64, 64, 64, 256], "kappa": [1, 1, 0.5, 0.25]}


def resnet20_counts(k: int) -> dict[str, int]:
    return {
        "conv": min(12 if k == 1 else 27, 27), "blocks.[012].*": 36 * k, "blocks.3.shortcut.*": 6 * k,
        "blocks.6.shortcut.*": 8 * k, "blocks.[345].*": 54 * k, "blocks.[678].*": 72 * k, "linear": 8 * k,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:nothing of")
def test_trainable_parameters_are_those_of_the_published_networks():
    network = mlp([784, 512, 512, 512, 10])
    assert parameter_count(network) == 935_434
    assert trainable_parameters(asymmetrize(network, **PAPER_MLP)) == 834_570
    assert parameter_count(ResNet()) == 272_474
    assert trainable_parameters(asymmetrize(ResNet(), n_fix=resnet20_counts(1), kappa=2.0)) == 230_026
    small = ResNet(16, 1)
    assert parameter_count(small) == 78_042
    filters = asymmetrize(small, n_fix={"conv": 3, "*": 8}, kappa=2.0, filters=True)
    assert trainable_parameters(filters) == 60_634
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how large kappa is beside the trainable entries depends on how they are drawn
        assert trainable_parameters(asymmetrize(nn.Sequential(nn.Linear(4, 3, bias=False)), n_fix=1)) == 9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nothing of")
def test_trainable_parameters_of_the_widest_network():
    assert parameter_count(ResNet(128)) == 17_289_866
    assert trainable_parameters(asymmetrize(ResNet(128), n_fix=resnet20_counts(3), kappa=2.0)) == 16_273_946


def test_filters_fix_whole_kernels():
    model = asymmetrize(nn.Sequential(nn.Conv2d(8, 4, 3)), n_fix=2, filters=True)
    trainable = trainable_masks(model)["0.parametrizations.weight.original"].flatten(2)
    assert torch.equal(trainable.any(2), trainable.all(2))
    assert ((~trainable.any(2)).sum(1) == 2).all()


def test_masks_are_the_same_in_another_process():
    model = asymmetrize(mlp([8, 16, 16, 3]), seed=3)
    code = (
        "from coset.weights.asymmetric.asymmetrize import asymmetrize, fingerprint; "
        "from coset.weights.asymmetric.networks import mlp; "
        "print(fingerprint(asymmetrize(mlp([8, 16, 16, 3]), seed=3)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == fingerprint(model)
    assert fingerprint(asymmetrize(mlp([8, 16, 16, 3]), seed=4)) != fingerprint(model)
    assert fingerprint(mlp([8, 16, 16, 3])) == ""


def test_layers_of_equal_shape_have_masks_of_their_own():
    a, b = (fixed_entries(torch.empty(16, 16), 2, 1.0, 0, name) for name in ("a", "b"))
    assert not torch.equal(a.index, b.index)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_rows_have_n_fix_entries_and_differ(fan_in, n_fix, seed):
    n_fix = min(n_fix, fan_in)
    rows = min(math.comb(fan_in, n_fix), 40)
    chosen = random_subsets(rows, fan_in, n_fix, torch.Generator().manual_seed(seed))
    assert chosen.shape == (rows, n_fix)
    assert all(len(set(row)) == n_fix and min(row) >= 0 and max(row) < fan_in for row in chosen.tolist())
    assert len({tuple(sorted(row)) for row in chosen.tolist()}) == rows


def test_too_few_subsets_for_the_rows():
    with pytest.raises(CosetError, match="n_fix=1 of 3 entries gives 3 different rows, fewer than 4"):
        asymmetrize(nn.Sequential(nn.Linear(3, 4)), n_fix=1)
    # A share grows until rows can differ.
    assert asymmetries(asymmetrize(nn.Sequential(nn.Linear(5, 8)), n_fix=0.1))[0].fixed == 16


def test_densest_masks_by_hand():
    assert densest_subsets(3, 4) == [(), (0,), (1,)]
    assert densest_subsets(6, 4)[-1] == (0, 1)
    with pytest.raises(CosetError, match="5 rows cannot differ by which of 2 entries"):
        densest_subsets(5, 2)


def test_spread_of_fixed_values():
    values = fixed_entries(torch.empty(1000, 200), 100, 2.0, 0, "x").values
    assert values.std() == pytest.approx(2.0, rel=0.01)
    assert not fixed_entries(torch.empty(10, 20), 10, 0.0, 0, "x").values.any()


def test_figlu_by_hand():
    gate = FiGLU(2)
    for weight, wanted in (
        ([[0.0, 1.0], [1.0, 0.0]], [0.880797, 1.462117]),
        ([[0.0, 0.0], [0.0, 0.0]], [0.5, 1.0]),
        ([[1.0, 0.0], [0.0, 1.0]], [0.731059, 1.761594]),
    ):
        gate.weight.copy_(torch.tensor(weight))
        assert gate(torch.tensor([1.0, 2.0])).tolist() == pytest.approx(wanted, abs=1e-6)


def test_figlu_on_images_is_that_of_every_pixel():
    gate = FiGLU(3, axis=1, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, 4, 5)
    flat = FiGLU(3)
    flat.weight = gate.weight
    torch.testing.assert_close(gate(x).movedim(1, -1), flat(x.movedim(1, -1)))


def test_jacobian_of_figlu():
    gate = FiGLU(4, generator=torch.Generator().manual_seed(0)).double()
    x = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(torch.func.jacrev(gate)(x), jacobian(gate.weight, x))


def test_permutations_that_figlu_commutes_with():
    assert permutation_equivariances(torch.tensor([[0.0, 1.0], [1.0, 0.0]])) == [(0, 1), (1, 0)]
    assert permutation_equivariances(torch.tensor([[1.0, 2.0], [3.0, 4.0]])) == [(0, 1)]
    assert len(permutation_equivariances(torch.eye(4))) == 24  # SiLU is elementwise
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    alone = [
        p for p in itertools.permutations(range(4)) for q in itertools.permutations(range(4))
        if torch.equal(weight[list(p)][:, list(q)], weight)
    ]  # fmt: skip
    assert alone == permutation_equivariances(weight) == [(0, 1, 2, 3)]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Linear(9, 16), nn.Parameter(torch.randn(1, 1, 16))
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation=nn.GELU(), batch_first=True)

    def forward(self, x):
        x = self.embed(x) + self.token
        return self.block(self.attend(x, x, x)[0])


MODELS = {
    "mlp": (lambda: mlp([8, 16, 16, 3]), (torch.randn(4, 8),)),
    "resnet": (lambda: ResNet(8, 1), (torch.randn(2, 3, 16, 16),)),
    "attention": (Attention, (torch.randn(2, 7, 9),)),
}


@pytest.mark.parametrize("method", ["w", "sigma"])
@pytest.mark.parametrize("name", MODELS)
def test_export_computes_the_same_and_state_dicts_round_trip(name, method, tmp_path):
    build, x = MODELS[name]
    model = asymmetrize(build(), method, example=x, filters=False).eval()
    plain = deasymmetrize(model).eval()
    assert not asymmetries(plain)
    assert not any(type(m).__module__.startswith("coset") for m in plain.modules() if name == "mlp")
    torch.testing.assert_close(plain(*x), model(*x))
    assert asymmetries(model)  # the original is left alone
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = asymmetrize(build(), method, example=x).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(*x), model(*x))
    assert fingerprint(other) == fingerprint(model)


def test_sample_by_sample_is_the_same_as_a_batch():
    for method in ("w", "sigma"):
        for build, (x,) in MODELS.values():
            model = asymmetrize(build(), method, example=(x,)).double().eval()
            x = x.double()
            torch.testing.assert_close(torch.cat([model(row[None]) for row in x]), model(x))


def test_graph_convolutions():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = GCNConv(6, 16), GCNConv(16, 3)

        def forward(self, x, edges):
            return self.second(self.first(x, edges).relu(), edges)

    torch.manual_seed(0)  # large weights would make kappa small beside them, which is warned of
    x, edges = torch.randn(5, 6), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    model = asymmetrize(Graph(), n_fix=3)
    assert [layer.name for layer in asymmetries(model)] == ["first.lin.weight", "second.lin.weight"]
    torch.testing.assert_close(deasymmetrize(model)(x, edges), model(x, edges))
    model(x, edges).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return x @ self.matrix


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Sequential(nn.LSTM(4, 8)), {}, r"0 \(LSTM\) holds the matrix weight_ih_l0 \(32, 4\).*skip=\['0'\]"),
        (nn.Sequential(Own()), {}, r"0 \(Own\) holds the matrix matrix \(4, 4\)"),
        (tied(), {}, "1.weight is tied to 0.weight"),
        (nn.ReLU(), {}, "ReLU has no Linear, Conv"),
        (nn.Sequential(nn.LazyLinear(3)), {}, "has no size yet: run it once first"),
        (mlp([4, 8, 3]), {"n_fix": [1, 2, 3]}, "n_fix has 3 numbers for 2 layers: 0, 3"),
        (mlp([4, 8, 3]), {"n_fix": {"0": 2}}, "n_fix has no pattern for 3; end it with"),
        (mlp([4, 8, 3]), {"n_fix": 1.5}, "n_fix=1.5 of 0 must be a share below 1, or a whole number"),
        (mlp([4, 8, 3]), {"method": "sigma"}, "method=sigma needs example="),
        (nn.Sequential(nn.Linear(4, 4)), {"method": "sigma"}, "has no activation modules to replace"),
        (mlp([4, 8, 3]), {"method": "v"}, "method='v' is unknown; choose w or sigma"),
        (asymmetrize(mlp([8, 8, 3])), {}, "0 is parametrized already"),
    ],
)
def test_mistakes_are_named(model, options, message):
    with pytest.raises(CosetError, match=message) as error:
        asymmetrize(model, **options)
    assert "\n" not in str(error.value)


def test_an_activation_used_for_two_widths_is_refused():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 8), shared, nn.Linear(8, 6), shared)
    with pytest.raises(CosetError, match="activation 1 sees 8 and 6 channels"):
        asymmetrize(model, "sigma", example=(torch.randn(1, 4),))


def test_small_constants_are_warned_about():
    with pytest.warns(UserWarning, match="kappa is not large beside the trainable entries of 0"):
        asymmetrize(mlp([16, 32, 3]), kappa=0.05)
    with pytest.warns(UserWarning, match="nothing of 0 is left to train"):
        asymmetrize(nn.Sequential(nn.Linear(3, 4)), n_fix=3)


def test_skipped_modules_stay():
    model = asymmetrize(mlp([8, 16, 16, 3]), skip=("6",))
    assert [layer.name for layer in asymmetries(model)] == ["0.weight", "3.weight"]
