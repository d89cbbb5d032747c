"""Hashes of content."""

import numpy as np
import pytest
import torch

from coset.core.identity import digest


def test_equal_content_gives_equal_hashes():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest(array) == digest(torch.from_numpy(array.copy())) == digest(np.asfortranarray(array))
    assert digest({"a": 1, "b": array}) == digest({"b": array, "a": 1})


@pytest.mark.parametrize(
    "other",
    [np.arange(6.0).reshape(3, 2), np.arange(6.0), np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3) + 1e-12],
)
def test_shape_type_and_every_number_count(other):
    assert digest(np.arange(6.0).reshape(2, 3)) != digest(other)


def test_parts_do_not_run_together():
    assert (
        len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest(["ab", "c"]), digest(None), digest("None")})
        == 6
    )


def test_what_has_no_content_is_refused():
    with pytest.raises(TypeError, match="a set has no identity"):
        digest({1, 2})
