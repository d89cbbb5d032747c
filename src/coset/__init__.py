"""Coset: deep learning on data and networks with symmetry."""

from pathlib import Path

from coset.core import caches, moved
from coset.core.errors import CosetError

__version__ = "0.2.0"
__all__ = ["CosetError", "__version__"]

moved.install()
caches.provide_cache(Path(__path__[0]))
