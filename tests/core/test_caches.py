import os
import subprocess
import sys

from coset.core import caches


def test_kernels_compile_where_nothing_can_be_written(tmp_path):
    # Root may write anywhere, so the folders are said to be unwritable; the kernel is compiled in a process of its own.
    code = f"""
import os, pathlib
from coset.core import caches
caches._writable = lambda folder: False
caches.provide_cache(pathlib.Path("/package"))
assert os.environ["NUMBA_CACHE_DIR"].startswith({str(tmp_path)!r})
import numba
print(os.path.isdir(numba.config.CACHE_DIR))
"""
    given = {**os.environ, "TMPDIR": str(tmp_path)}
    given.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given)
    assert done.stdout == "True\n", done.stderr
    assert "compiled kernels are not kept" in done.stderr
    assert not list(tmp_path.iterdir())  # it is gone with the process


def test_nothing_is_changed_where_something_can_be_written(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    caches.provide_cache(tmp_path / "package")
    assert "NUMBA_CACHE_DIR" not in os.environ
