"""Symmetry is checked in float64, where a broken one stands out, and in float32, in which models are used."""

import torch

PRECISIONS = (
    {"dtype": torch.float64, "tolerance": 1e-8},
    {"dtype": torch.float32, "tolerance": 1e-4},
)
"""Options of ``verify_claims`` and ``check_equivariance``."""
