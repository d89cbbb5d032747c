"""Layers that networks of weights are made of: those that act entry by entry, and those that break symmetries."""

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ACTIVATIONS = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Mish, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Tanh, nn.Sigmoid, nn.Softplus,
    nn.ReLU6, nn.Hardswish,
)  # fmt: skip
