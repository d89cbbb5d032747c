"""Hashes of content: equal content, equal hash, whatever holds it; anything else, another."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from coset.core.identity import digest


@dataclass
class Pair:
    name: str
    value: torch.Tensor


def test_equal_content_has_equal_hashes():
    x = torch.arange(12.0).view(3, 4)
    assert digest(x) == digest(x.clone()) == digest(x.numpy()) == digest(x.T.contiguous().T)
    assert digest(Pair("a", x)) == digest({"name": "a", "value": x})
    assert len(digest()) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2), torch.tensor([0.0, 1e-30])),
        (torch.zeros(2, dtype=torch.bfloat16), torch.tensor([0.0, 1.0], dtype=torch.bfloat16)),
        (["ab", "c"], ["a", "bc"]),
        ([["a"], "b"], ["a", ["b"]]),
        (1, "1"),
        (1, True),
        (None, "None"),
        ({"a": 1}, {"a": 2}),
        (np.array(["a", "b"], dtype=object), np.array(["a", "c"], dtype=object)),
    ],
)
def test_other_content_has_another_hash(one, other):
    assert digest(one) != digest(other)


def test_what_has_no_content_is_refused():
    with pytest.raises(TypeError, match="object has no identity"):
        digest([object()])
