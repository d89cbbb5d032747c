"""The optimiser of supervised training."""

from collections.abc import Iterable

import torch
from torch import nn


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Adam, or AdamW where weights decay; on the CPU all tensors take their step in one call.

    On a GPU PyTorch chooses: its scaler of half-precision gradients and clipping do not go with the fused kernel.
    """
    parameters = list(parameters)
    fused = all(parameter.device.type == "cpu" for parameter in parameters) or None
    if weight_decay:
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=fused)
