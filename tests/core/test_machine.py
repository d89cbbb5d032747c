"""What this machine has."""

import os

import pytest

from coset.core import machine


@pytest.mark.skipif(not machine.FACTS.is_file(), reason="the system tells nothing of its memory")
def test_memory_is_what_the_system_says_elsewhere():
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory_installed() == pytest.approx(installed, rel=0.01)
    assert 0 < machine.memory_free() < machine.memory_installed()


def test_where_the_system_does_not_tell_it_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "FACTS", tmp_path / "nothing")
    assert machine.memory_installed() == machine.memory_free() == 0
