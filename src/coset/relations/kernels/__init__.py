"""Numba kernels behind the verbs. Compiled at first use, cached on disk, free of the GIL, split over threads by us."""
