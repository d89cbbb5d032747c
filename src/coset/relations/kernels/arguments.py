"""What kernels take, in words: a flat array comes with what tells where its rows lie."""

import numpy as np
from jaxtyping import Float, Int

Numbers = Float[np.ndarray, " entries"]
"""A tensor's memory, flat."""

Whole = Int[np.ndarray, " entries"]
"""Offsets, or numbers of rows and edges."""

Layout = Int[np.ndarray, "5 offsets"]
"""Where the rows of every graph lie: :meth:`coset.relations.relation.Relation.layout`."""

PerThread = Float[np.ndarray, "parts ..."]
"""Sums that each thread adds to a row of its own."""

Lanes = tuple[int, ...]
"""A tuple of zeros whose length is that of the vectors, and a part of its type: see :mod:`.simd`."""
