import pytest
import torch
from torch.func import functional_call

from coset.core.errors import CosetError
from coset.weights.asymmetric.classification_data import digits
from coset.weights.asymmetric.comparison import matched, row
from coset.weights.asymmetric.connectivity import segment
from coset.weights.asymmetric.ensembles import Training, initialise, train
from coset.weights.asymmetric.networks import ResNet, mlp
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec, permute
from coset.weights.permutations.matching import activation_matching, objective, weight_matching


@pytest.mark.parametrize("build", [lambda: mlp([8, 20, 20, 20, 3]), lambda: ResNet(4, 2)])
def test_a_permuted_copy_is_recovered(build):
    model = build()
    spec, state = permutation_spec(model), dict(model.state_dict())
    action = NeuronPermutation(spec)
    shuffled = action.apply(action.sample(state, torch.Generator().manual_seed(0)), state)
    orders = weight_matching(spec, state, shuffled)
    assert all(torch.equal(value, state[name]) for name, value in permute(spec, shuffled, orders).items())
    x = (torch.randn(50, 8) if isinstance(model[0] if hasattr(model, "__getitem__") else None, torch.nn.Linear) else
         torch.randn(4, 3, 12, 12))  # fmt: skip
    orders = activation_matching(spec, model, state, shuffled, x)
    assert all(torch.equal(value, state[name]) for name, value in permute(spec, shuffled, orders).items())


def test_activations_of_every_call_count():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = torch.nn.Linear(8, 20, bias=False), torch.nn.Linear(20, 3)

        def forward(self, x):
            return self.head(self.hidden(x).relu() + self.hidden(0 * x))  # the last call says nothing

    model = Twice()
    spec, state = permutation_spec(model), dict(model.state_dict())
    orders = NeuronPermutation(spec).sample(state, torch.Generator().manual_seed(0))
    found = activation_matching(spec, model, state, permute(spec, state, orders), torch.randn(50, 8))
    assert torch.equal(found["hidden"], orders["hidden"].argsort())


@pytest.fixture(scope="module")
def trained():
    data = digits()
    model = mlp([64, 48, 48, 48, 10])
    state = initialise(lambda: mlp([64, 48, 48, 48, 10]), model, [0, 1])
    return train(model, state, *data.train, Training(epochs=8), seeds=[0, 1]), data


def test_matching_keeps_the_function_brings_weights_closer_and_lowers_the_barrier(trained):
    ensemble, data = trained
    spec = permutation_spec(ensemble.model)
    first, second = row(ensemble.state, 0), row(ensemble.state, 1)
    orders = weight_matching(spec, first, second)
    moved = permute(spec, second, orders)
    x = data.test[0][:20]
    torch.testing.assert_close(
        functional_call(ensemble.model, moved, (x,)),
        functional_call(ensemble.model, second, (x,)),
        atol=1e-5,
        rtol=1e-4,
    )
    assert not torch.equal(moved["1.weight"], second["1.weight"])  # LayerNorm moves along
    assert objective(spec, first, moved) > objective(spec, first, second)
    again = weight_matching(spec, first, moved, seed=1)
    assert objective(spec, first, permute(spec, moved, again)) >= objective(spec, first, moved)
    apart = segment(ensemble.model, first, second, data.test, points=3).barrier
    for how in ("weights", "activations"):
        pair = matched(ensemble, [(0, 1)], how, data.train[0])
        aligned = segment(ensemble.model, row(pair.state, 0), row(pair.state, 1), data.test, points=3).barrier
        assert aligned < 0.4 * apart


def test_networks_of_another_architecture():
    spec = permutation_spec(mlp([4, 5, 6, 2]))
    with pytest.raises(CosetError, match=r"the network lacks 3\.weight"):
        weight_matching(
            spec,
            mlp([4, 5, 6, 2]).state_dict(),
            mlp([4, 5]).state_dict() | {"1.weight": torch.ones(5), "1.bias": torch.ones(5)},
        )
