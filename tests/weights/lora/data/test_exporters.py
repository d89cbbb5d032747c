"""Every exporter's files give the updates that they stand for, or are refused by name."""

import math

import pytest

pytest.importorskip("peft")
pytest.importorskip("safetensors")
exporters = pytest.importorskip("exporters")


@pytest.mark.parametrize("kind", exporters.CASES)
def test_the_update_is_right_or_the_file_is_refused(kind, tmp_path):
    found = exporters.error_of(kind, tmp_path)
    wanted = exporters.CASES[kind](tmp_path)[1]
    if isinstance(wanted, str):
        assert isinstance(found, str), f"read, though it has to be refused: {wanted}"
        assert found.startswith(wanted)
    else:
        assert isinstance(found, float), found
        assert math.isfinite(found)
        assert found < 1e-6


def test_there_are_enough():
    assert len(exporters.CASES) >= 30
