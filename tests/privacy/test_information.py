"""What weights determine: parts of a group's action, null spaces, and ceilings for attacks without a prior."""

import math

import pytest
import torch

from coset.core.errors import CosetError
from coset.privacy import (
    FiniteGroup,
    InvariantClassifier,
    ReLUNetwork,
    SoftplusFeatures,
    energies,
    group_of,
    information_of,
    isotypic_parts,
    multipliers,
    train_to_stationarity,
)
from coset.privacy.hidden_layer import hidden_layer_of
from coset.privacy.information import normal_equations_of_any
from coset.privacy.second_order import normal_equations


def normal(*sizes, seed=0):
    return torch.randn(*sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("plain", (2, 2), {"all": 4}),
        ("flips", (2, 2), {"+++": 1, "+--": 1, "-+-": 1, "--+": 1}),
        ("c4", (2, 2), {"A": 1, "B": 1, "E": 2}),
        ("d4", (2, 2), {"A1": 1, "B2": 1, "E": 2}),
        ("d4", (3, 3), {"A1": 3, "B1": 1, "B2": 1, "E": 4}),
        ("sets", (4, 2), {"fixed": 2, "part 2": 6}),
    ],
)
def test_small_groups_split_as_their_character_tables_say(name, shape, sizes):
    group = group_of(name, shape)
    parts = isotypic_parts(group)
    assert {part.name: len(part) for part in parts} == sizes
    whole = torch.cat([part.basis for part in parts], 1)
    torch.testing.assert_close(whole.T @ whole, torch.eye(math.prod(shape), dtype=torch.float64))
    for part in parts:
        projector = part.basis @ part.basis.T
        for matrix in group.matrices():
            torch.testing.assert_close(projector @ matrix, matrix @ projector)


def test_shifts_split_into_frequencies():
    """The real Fourier basis: on 4 x 4 pixels 4 parts of one dimension and 6 of two."""
    sizes = sorted(len(part) for part in isotypic_parts(group_of("shifts", (4, 4))))
    assert sizes == [1] * 4 + [2] * 6


def test_a_group_without_names_has_numbers():
    """S_3 on three letters as index tables: the mean, and differences."""
    table = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    assert [(p.name, len(p)) for p in isotypic_parts(FiniteGroup(table, "S_3"))] == [("fixed", 1), ("part 2", 2)]


def test_energies_by_hand():
    parts = isotypic_parts(group_of("d4", (2, 2)))
    found = energies(torch.tensor([[1.0, 0, 0, 0]]), parts)
    assert found == pytest.approx({"A1": 0.25, "B2": 0.25, "E": 0.5})


@pytest.mark.parametrize("name", ["plain", "c4"])
def test_equations_of_any_network_are_those_written_out(name):
    model = InvariantClassifier(SoftplusFeatures(9, 5), group_of(name, (3, 3)))
    x, c = normal(2, 9), normal(2, seed=1)
    wanted = normal_equations(hidden_layer_of(model, 9), x, c)
    torch.testing.assert_close(normal_equations_of_any(model, x, c), wanted)
    with pytest.raises(CosetError, match="one output"):
        normal_equations_of_any(ReLUNetwork([9, 4, 3]), x, c)


def trained(name, decay, seed=0):
    group = group_of(name, (4, 4))
    generator = torch.Generator().manual_seed(seed)
    model = InvariantClassifier(SoftplusFeatures(16, 60, generator=generator), group)
    x, y = 0.5 * normal(4, 16, seed=seed + 5), torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    train_to_stationarity(model, x, y, weight_decay=decay, iterations=1000)
    with torch.no_grad():
        return model, x, multipliers("mse", model(x), y, decay)


def test_a_plain_network_determines_its_inputs():
    model, x, c = trained("plain", 1e-3)
    found = information_of(model, x, c, model.group)
    assert (found.unknowns, found.undetermined) == (68, 0)
    torch.testing.assert_close(found.ceiling, torch.ones(4, dtype=torch.float64))


def test_strong_decay_leaves_the_fixed_part_alone():
    """Under D4 all neurons become symmetric: of 16 pixels the 3 dimensions of A1 are left, and the ceiling follows."""
    model, x, c = trained("d4", 0.3)
    found = information_of(model, x, c, model.group)
    assert found.weights["A1"] == pytest.approx(1, abs=1e-9)
    assert found.data["A1"] < 0.5
    assert found.undetermined >= 4 * 13
    symmetric = model.group.correlation(model.group.centre(x), x)[0].diagonal()
    assert bool((found.ceiling <= symmetric + 1e-6).all())
    assert float(found.ceiling.mean()) < 0.8


def test_large_problems_are_left_alone():
    model = InvariantClassifier(SoftplusFeatures(100, 5), group_of("plain", (100,)))
    assert information_of(model, normal(30, 100), normal(30), model.group) is None
