"""Averaged networks solved part by part, and what a prior adds to what they do not see."""

import pytest
import torch

from coset.core.errors import CosetError
from coset.privacy import (
    Attack,
    InvariantClassifier,
    ReLUNetwork,
    SoftplusFeatures,
    group_of,
    hidden_layer_of,
    multipliers,
    reconstruct,
    train_to_stationarity,
)
from coset.privacy.by_parts import _next
from coset.privacy.data.images import digits
from coset.privacy.denoising import denoised, train_denoiser
from coset.privacy.irreps import isotypic_parts
from coset.privacy.pages import _filled, _panels
from coset.privacy.priors import Hourglasses, deep, mixture, smooth, variation
from coset.privacy.second_order import normal_equations as of_all
from coset.privacy.views import normal_equations, squares, views_of
from coset.runs.recipes import load


def seeded(number=0):
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def trained():
    """Six digits under the symmetries of the square, to where the equations hold."""
    images, group = digits(6, 12, 0), group_of("d4", (8, 8))
    model = InvariantClassifier(SoftplusFeatures(64, 150, generator=seeded()), group)
    train_to_stationarity(model, images.train, images.labels)
    with torch.no_grad():
        c = multipliers("mse", model(images.train), images.labels, 1e-3)
    return images, model, c


@pytest.fixture(scope="module")
def denoiser():
    """Ten digits, and a denoiser of others."""
    images = digits(10, 500, 0)
    return images, train_denoiser(images.held_out, steps=1000)


@pytest.fixture
def three_neurons():
    """One that every symmetry of the square leaves as it is, one that a mirror does, one that none does."""
    group = group_of("d4", (8, 8))
    base = SoftplusFeatures(64, 3, generator=seeded())
    with torch.no_grad():
        mirrored = base.weight[1].view(8, 8)
        base.weight[0] = group.centre(base.weight[0])
        base.weight[1] = (mirrored + mirrored.flip(0)).flatten()
    return hidden_layer_of(InvariantClassifier(base, group), 64), isotypic_parts(group)


def test_neurons_see_the_parts_of_their_stabiliser(three_neurons):
    layer, parts = three_neurons
    found = {len(view.moved): view for view in views_of(layer, parts)}
    assert {order: [parts[p].name for p in sorted(view.parts)] for order, view in found.items()} == {
        1: ["A1"], 4: ["A1", "B1", "E"], 8: ["A1", "A2", "B1", "B2", "E"],
    }  # fmt: skip
    assert {order: view.weight.size(1) for order, view in found.items()} == {1: 10, 4: 32, 8: 64}


def test_in_what_neurons_see_the_equations_are_the_same(three_neurons):
    layer, parts = three_neurons
    views = views_of(layer, parts)
    x, c = torch.randn(4, 64, generator=seeded(), dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    assert squares(views, x, c) == pytest.approx(float(layer.squares(x, c)), rel=1e-12)
    matrix, slope = normal_equations(views, x, c, torch.eye(64, dtype=torch.float64), 2.0)
    unit = torch.cat([torch.ones(256), torch.full((4,), 2.0)]).double()
    torch.testing.assert_close(matrix, of_all(layer, x, c) * unit * unit[:, None], rtol=1e-9, atol=1e-9)
    to_x, to_c, _ = layer.gradient(x.unsqueeze(0), c.unsqueeze(0))
    torch.testing.assert_close(slope, torch.cat([to_x.flatten(), 2 * to_c[0]]) / 2, rtol=1e-9, atol=1e-9)


def test_a_part_is_solved_after_those_that_its_neurons_see_as_well():
    views = [frozenset(seen) for seen in ([0], [0, 3], [0, 2], [0, 3, 4], [0, 2, 4], range(5))]
    solved, order = frozenset({0}), []
    while new := _next([10, 6, 6, 10, 32], views, solved):
        solved, order = solved | new, [*order, sorted(new)]
    assert order == [[2], [4], [1, 3]]  # B1, E with it, then A2 and B2; not B2 apart from both


def test_part_by_part_the_equations_are_solved(trained):
    images, model, c = trained
    attack = Attack(method="by-parts", candidates=6, restarts=4)
    found = reconstruct(model, 64, attack, group=model.group, scale=float(c.abs().mean()))
    assert found.residual.item() < 1e-8  # a search that gets stuck ends above 1e-5
    group, symmetric = model.group, model.group.centre(images.train)
    away = torch.cdist(symmetric, group.centre(found.candidates[0])).amin(1) / symmetric.norm(dim=1)
    assert away.max() < 1e-3  # the symmetric part, by neurons that see no other
    assert (found.multipliers[0].sort().values - c.sort().values).abs().max() < 1e-3 * c.abs().max()


def test_priors_change_what_the_weights_do_not_see_alone():
    images, group = digits(40, 400, 0), group_of("d4", (8, 8))
    visible = torch.cat([part.basis for part in isotypic_parts(group)[:-1]], 1)  # all but E
    x = images.train @ visible @ visible.T
    flat, likely = smooth(x, visible, (8, 8)), mixture(x, visible, images.held_out, group)
    untrained = deep(x, visible, (8, 8), images.box, steps=20, tries=2)
    assert (untrained - x).norm(dim=1).min() > 0.01
    for filled in (flat, untrained, likely):
        torch.testing.assert_close(filled @ visible, x @ visible, rtol=1e-9, atol=1e-9)
        assert filled.abs().max() < 3
    before, after, other = (variation(part.view(-1, 8, 8)) for part in (x, flat, likely))
    assert (after < 0.99 * before).all()
    assert (after < other).all()
    own = group.correlation(likely, images.train)[0].diagonal().mean()
    assert own > group.correlation(x, images.train)[0].diagonal().mean() + 0.01
    everything = torch.eye(64, dtype=torch.float64)
    assert torch.equal(smooth(x, everything, (8, 8)), x)
    assert torch.equal(deep(x, everything, (8, 8)), x)


def test_a_denoiser_of_other_digits_fills_in_what_the_weights_do_not_see_alone(denoiser):
    (images, model), group = denoiser, group_of("d4", (8, 8))
    visible = torch.cat([part.basis for part in isotypic_parts(group)[:-1]], 1)  # all but E
    x = images.train @ visible @ visible.T
    filled = denoised(x, visible, model, group, steps=20, tries=4)
    torch.testing.assert_close(filled @ visible, x @ visible, rtol=1e-9, atol=1e-9)
    own = group.correlation(filled, images.train)[0].diagonal().mean()
    assert own > group.correlation(x, images.train)[0].diagonal().mean() + 0.01
    first, again = (denoised(x, visible, train_denoiser(images.held_out, steps=20), group, steps=5) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(denoised(x, torch.eye(64, dtype=torch.float64), model, group), x)


def test_a_denoiser_takes_noise_away_at_every_size(denoiser):
    images, model = denoiser
    clean, spread = images.train.float().repeat(20, 1), model.deviation**2
    for size in (0.05, 0.3, 1.0):
        y = clean + size * torch.randn(clean.shape, generator=seeded())
        with torch.no_grad():
            left = (model(y, torch.full((len(y), 1), size)) - clean).square().mean()
        # what the best guess leaves that knows the mean and one variance alone
        assert left < 0.9 * size**2 * spread / (size**2 + spread)


def test_an_hourglass_can_be_fitted_and_keeps_to_its_box():
    networks = Hourglasses(2, (8, 8), (-1.0, 0.5))
    target = torch.stack([torch.linspace(-0.8, 0.3, 8).expand(8, 8), 0.4 * torch.rand(8, 8, generator=seeded())])
    optimizer = torch.optim.Adam(networks.parameters(), lr=0.003)
    first = float((networks().detach() - target).square().mean())
    for _ in range(100):
        optimizer.zero_grad()
        (networks() - target).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert (networks() - target).square().mean() < 0.2 * first
        networks.last.bias.fill_(50.0)
        assert torch.equal(networks(), torch.full((2, 8, 8), 0.5))


def test_what_cannot_be_taken_apart_is_refused(trained):
    _, model, _ = trained
    plain = InvariantClassifier(SoftplusFeatures(64, 5, generator=seeded()), group_of("plain", (8, 8)))
    relu = InvariantClassifier(ReLUNetwork([64, 5, 1], generator=seeded()), model.group)
    attack = Attack(method="by-parts", candidates=2)
    for wrong in (plain, relu):
        with pytest.raises(CosetError, match="averaged over a group"):
            reconstruct(wrong, 64, attack, group=wrong.group)
    few = InvariantClassifier(SoftplusFeatures(64, 5, generator=seeded()), model.group)
    with pytest.raises(CosetError, match="do not suffice"):
        reconstruct(few, 64, attack, group=few.group)


def test_a_prior_needs_an_attack_before_it():
    with pytest.raises(CosetError, match=r"attacks.smooth.of='nobody'.*by parts"):
        load("reconstruction/digits-parts", ["attacks.smooth.of=nobody"])


def test_the_page_draws_a_search_once_and_nothing_of_what_was_solved_at_once():
    recipe = load("reconstruction/digits-parts", [])
    rows = [{"step": float(step), "residual": 0.1**step, "symmetry": 0.5} for step in range(4)]
    solved = dict.fromkeys(recipe.attacks, rows[:2])
    assert _panels(recipe, {"attacks": solved, "margin": []}) == []
    panels = _panels(recipe, {"attacks": dict.fromkeys(recipe.attacks, rows), "margin": []})
    assert [panel.title for panel in panels] == ["Residual of the weights", "Drift towards symmetric inputs"]
    assert [len(panel.figure["data"]) for panel in panels] == [1, 1]


def test_columns_that_nothing_is_known_of_are_not_shown():
    table = _filled(["record", "ceiling", "epsilon"], [["1", "", ""], ["2", "", "4.4"]])
    assert (table.columns, table.rows) == (["record", "epsilon"], [["1", ""], ["2", "4.4"]])
