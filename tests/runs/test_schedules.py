import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coset.runs.schedules import cosine, plateau


def test_cosine_climbs_then_falls_to_zero():
    rates = [cosine(epoch, epochs=9, warmup=3) for epoch in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.0)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_cosine_without_warmup_starts_at_one():
    assert cosine(0, epochs=10) == 1.0


def test_plateau_halves_after_more_than_patience_epochs_without_progress():
    assert plateau([1.0, 1.0, 1.0], "min", patience=2) == 1.0
    assert plateau([1.0, 1.0, 1.0, 1.0], "min", patience=2) == 0.5
    assert plateau([0.1, 0.2, 0.3, 0.4], "max", patience=2) == 1.0


@given(
    values=st.lists(st.sampled_from([0.5, 0.9, 1.0, 1.00001, 2.0, -1.0]), max_size=40),
    better=st.sampled_from(["min", "max"]),
    patience=st.integers(0, 3),
)
def test_plateau_is_that_of_pytorch(values, better, patience):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, better, factor=0.5, patience=patience, min_lr=1e-3, eps=0, threshold=1e-4
    )
    for count, value in enumerate(values, 1):
        if value < 0:  # a relative threshold of a negative best value is the wrong way round there
            return
        theirs.step(value)
        assert plateau(values[:count], better, patience) == optimiser.param_groups[0]["lr"]
