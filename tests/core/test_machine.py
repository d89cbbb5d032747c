"""What this machine has."""

import os
import platform
import subprocess
import sys

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


AGAIN_AND_AGAIN = """
import resource
import sys
import numpy as np
from coset.core.machine import keep_freed_memory

told = keep_freed_memory() if sys.argv[1] == "keep" else False
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(2**23)
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what, **environment):
    """Whether it was done, and pages that the system had to hand out for eight arrays of 64 MB after a first one."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", AGAIN_AND_AGAIN, what]
    run = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True)
    told, count = run.stdout.split()
    return told == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_freed_memory_is_used_again_if_it_is_kept():
    done, kept = faults("keep")
    assert done
    _, given_back = faults("leave")
    assert kept < given_back / 5
    assert not faults("keep", MALLOC_ARENA_MAX="2")[0]


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not machine.keep_freed_memory()
