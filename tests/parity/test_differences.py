"""The measure itself: relative to the largest official number, and never blind to NaN or to arrays left out."""

import numpy as np
import pytest
import torch
from torch import nn

from .differences import Differences
from .reading import VARIABLE, ParityFile, parity_folder


@pytest.fixture
def file(tmp_path):
    arrays = {
        "options": np.array(["family=made", "class=coset.some.Linear", "arg.bias=True", "arg.how='sum'", "mode=eval"]),
        "note": np.array("made by hand"),
        "state/weight": np.array([[1.0, 2.0]]), "state/bias": np.array([0.5]), "input/x": np.array([[1.0, 1.0]]),
        "official/output": np.array([[3.5]]),
        "official/grad/weight": np.array([[1.0, 1.0]]), "official/grad/bias": np.array([1e-15]),
    }  # fmt: skip
    np.savez(tmp_path / "made.npz", **arrays)
    return ParityFile(tmp_path / "made.npz")


def test_relative_to_the_largest_official_number(file):
    found = Differences(file)
    found.compare("output", torch.tensor([1.0, 4.5]), torch.tensor([1.0, 4.0]))
    found.compare("output", torch.tensor([1.0]), torch.tensor([1.0]))
    assert found.worst == {"output": 0.125}
    assert found.beyond(0.1) == {"output": 0.125}
    assert not found.beyond(0.2)


def test_nan_stays(file):
    found = Differences(file)
    found.compare("output", torch.tensor([torch.nan]), torch.tensor([1.0]))
    found.compare("output", torch.tensor([1.0]), torch.tensor([1.0]))
    assert list(found.beyond(1e9)) == ["output"]


def test_zeros_are_compared_as_they_are_and_sizes_must_be_equal(file):
    found = Differences(file)
    found.compare("pools", torch.tensor([0.25]), torch.tensor([0.0]))
    assert found.worst == {"pools": 0.25}
    with pytest.raises(RuntimeError):
        found.compare("pools", torch.zeros(2), torch.zeros(3))


def test_a_file_as_it_is_read(file):
    model = file.load(nn.Linear(2, 1))
    y = model(file.input("x"))
    found = Differences(file)
    found.compare("output", y, file.official("output"))
    assert file.unread() == {"official/grad/weight", "official/grad/bias"}
    model.weight.sum().backward()  # the bias has no gradient: as good as the 1e-15 of the file
    found.gradients(model)
    assert found.worst == {"output": 0.0, "gradients": 1e-13}
    assert file.unread() == set()
    assert (file.class_name, file.arguments, file.training) == ("Linear", {"bias": True, "how": "sum"}, False)


def test_weights_must_all_fit(file):
    with pytest.raises(RuntimeError, match="bias"):
        file.load(nn.Linear(2, 1, bias=False))


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert parity_folder() == tmp_path
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError, match="is no folder"):
        parity_folder()
