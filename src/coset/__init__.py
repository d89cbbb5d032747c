"""Coset: deep learning on data and networks with symmetry."""

from coset.core import moved
from coset.core.errors import CosetError

__version__ = "0.1.0"
__all__ = ["CosetError", "__version__"]

moved.install()
