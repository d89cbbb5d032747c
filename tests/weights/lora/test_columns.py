"""Batch and rank together as columns, whatever the strides."""

import pytest
import torch

from coset.weights.lora.models import _columns


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (3, 2, 5, 4), (1, 2, 5, 2), (4, 1, 1, 1), (2, 3, 5, 3), (0, 2, 5, 4)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_columns_are_a_permutation_of_axes(shape, kind):
    for factor in (torch.randn(shape, dtype=kind), torch.randn(shape[::-1], dtype=kind).permute(3, 2, 1, 0)):
        wanted = factor.permute(1, 2, 0, 3).reshape(shape[1], shape[2], shape[0] * shape[3])
        assert torch.equal(_columns(factor), wanted)
