"""The loop of single steps: by hand, and what it does with schedules, numbers that are not finite, and going on."""

import pytest
import torch

from coset.core.errors import CosetError
from coset.runs.fit import descend


def start(rate=0.25):
    x = torch.nn.Parameter(torch.tensor(4.0))
    return x, torch.optim.SGD([x], lr=rate)


def test_descent_on_a_parabola_by_hand():
    x, optimiser = start()
    # x <- x - 0.25 * 2 x = x / 2
    assert descend(optimiser, lambda _: x.square(), range(3)) == [16.0, 4.0, 1.0]
    assert float(x.detach()) == 0.5


def test_steps_are_asked_for_one_by_one_and_told_of():
    x, optimiser = start()
    seen = []

    def steps():
        for factor in (1.0, 0.0):
            seen.append(("asked", float(x.detach())))
            yield factor

    descend(optimiser, lambda factor: factor * x.square(), steps(), after=lambda loss: seen.append(("after", loss)))
    assert seen == [("asked", 4.0), ("after", 16.0), ("asked", 2.0), ("after", 0.0)]


def test_the_schedule_is_taken_further_after_each_step():
    x, optimiser = start()
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.0)
    assert descend(optimiser, lambda _: x.square(), range(3), schedule=schedule) == [16.0, 4.0, 4.0]


def test_what_diverges_is_told_with_its_step_and_changes_nothing_more():
    x, optimiser = start()
    losses = [x.square, lambda: x * torch.nan]
    with pytest.raises(CosetError, match="diverged in step 12: the loss is nan; lower the learning rate"):
        descend(optimiser, lambda loss: loss(), losses, first=10)
    assert float(x.detach()) == 2.0
