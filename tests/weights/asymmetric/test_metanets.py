import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from coset.weights.asymmetric.asymmetrize import asymmetrize
from coset.weights.asymmetric.classification_data import digits
from coset.weights.asymmetric.classifier_zoo import (
    Ranges,
    flat_features,
    make_zoo,
    on_the_way_of_zoo,
    statistics_features,
)
from coset.weights.asymmetric.comparison import row
from coset.weights.asymmetric.ensembles import Training, initialise, train
from coset.weights.asymmetric.metanets import DeepSets, Standardise, fit_metanet, flat_mlp, r2, statistics_mlp, tau
from coset.weights.asymmetric.networks import mlp
from coset.weights.permutations.groups import NeuronPermutation, permutation_spec

pytest.importorskip("sklearn")
SIZES = [64, 12, 12, 10]


@pytest.fixture(scope="module")
def zoo():
    return make_zoo(mlp(SIZES), lambda: mlp(SIZES), digits(), 24, Ranges(steps=(3, 30)), seed=1)


def test_networks_stop_when_each_has_had_its_steps():
    x, y = torch.randn(40, 6), torch.randint(3, (40,))
    build = lambda: mlp([6, 8, 3])  # noqa: E731
    start = initialise(build, build(), [0, 1])
    both = train(build(), start, x, y, Training(epochs=5, batch_size=8, steps=[3, 11]), seeds=[0, 1])
    for i, steps in enumerate((3, 11)):
        start = initialise(build, build(), [i])
        alone = train(build(), start, x, y, Training(epochs=5, batch_size=8, steps=steps), seeds=[i])
        for name, value in alone.state.items():
            torch.testing.assert_close(both.state[name][i], value[0], atol=1e-5, rtol=1e-4)


def test_a_zoo_differs_in_settings_and_agrees_with_itself(zoo):
    again = make_zoo(mlp(SIZES), lambda: mlp(SIZES), digits(), 24, Ranges(steps=(3, 30)), seed=1)
    assert torch.equal(again.accuracy, zoo.accuracy)
    assert 3 <= int(zoo.steps.min()) < int(zoo.steps.max()) <= 30
    assert 10**-3.7 <= float(zoo.rate.min()) < float(zoo.rate.max()) <= 10**-1.7
    wrong = (zoo.targets != digits().train[1]).double().mean(1)
    torch.testing.assert_close(wrong, 0.9 * zoo.wrong.double(), atol=0.06, rtol=0)  # a tenth of random labels is right
    x, y = digits().test
    out = functional_call(zoo.ensemble.model, row(zoo.ensemble.state, 5), (x,))
    assert float(zoo.accuracy[5]) == pytest.approx(float((out.argmax(1) == y).double().mean()))


def test_statistics_by_hand_and_under_permutations():
    model = torch.nn.Sequential(torch.nn.Linear(4, 1, bias=False))
    found = statistics_features(model, {"0.weight": torch.tensor([[[4.0, 1.0, 2.0, 3.0]]])})
    assert found[0].tolist() == pytest.approx([2.5, 1.25, 1, 4, 1.75, 2.5, 3.25])
    net = mlp(SIZES)
    state, action = dict(net.state_dict()), NeuronPermutation(permutation_spec(net))
    moved = action.apply(action.sample(state, torch.Generator().manual_seed(0)), state)
    before, after = ({k: v[None] for k, v in s.items()} for s in (state, moved))
    assert torch.equal(statistics_features(net, before), statistics_features(net, after))
    assert not torch.equal(flat_features(net, before), flat_features(net, after))
    sets = DeepSets(1)
    torch.testing.assert_close(sets(flat_features(net, before)), sets(flat_features(net, after)))


def test_fixed_entries_are_no_features():
    model = asymmetrize(mlp(SIZES), n_fix=4)
    state = {name: p[None] for name, p in model.named_parameters()}
    assert flat_features(model, state).size(1) == flat_features(mlp(SIZES), {
        name: p[None] for name, p in mlp(SIZES).named_parameters()}).size(1) - 4 * (12 + 12 + 10)  # fmt: skip


def test_metanetworks_learn_what_can_be_learned():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=g)
    y = 0.5 + 0.1 * x[:, 0] - 0.05 * x[:, 1]
    for build in (flat_mlp, statistics_mlp):
        score, model, test = fit_metanet(build, 10 * x + 3, y, rates=[1e-3, 1e-2], epochs=80)
        assert score.tau > 0.8
        assert score.r2 > 0.8
        with torch.no_grad():
            assert r2(model(10 * x[test] + 3).squeeze(1), y[test]) == pytest.approx(score.r2)
    score, *_ = fit_metanet(flat_mlp, torch.randn(400, 5, generator=g), y, rates=[1e-3], epochs=5)
    assert abs(score.tau) < 0.3  # nothing to be learned


def test_scores_by_hand():
    assert r2(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(0.5)
    assert tau(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(1 / 3)
    assert tau(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 3.0, 2.0])) == 0
    found = Standardise(torch.tensor([[0.0], [2.0]]))(torch.tensor([[1.0], [1e6]]))
    assert found.flatten().tolist() == [0, 5]


def test_the_way_is_that_of_each_networks_own_labels(zoo):
    x = digits().train[0]
    ways, found = on_the_way_of_zoo(zoo, x, 2, points=5)
    assert len(ways) == len(found) == 2
    for i in range(2):
        for end, state in ((0, zoo.ensemble.initial), (-1, zoo.ensemble.state)):
            loss = functional.cross_entropy(functional_call(zoo.ensemble.model, row(state, i), (x,)), zoo.targets[i])
            assert ways[i][end] == pytest.approx(float(loss), rel=1e-4)
