"""The networks whose minima are compared (arXiv 2405.20231): MLPs, residual networks, a graph network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from coset.core.choices import OptionsRegistry
from coset.core.options import Options
from coset.weights.asymmetric.classification_data import Classification, ClassificationData, Form


def mlp(sizes: Sequence[int], norm: bool = True, activation: type[nn.Module] = nn.GELU) -> nn.Sequential:
    """Linear -> LayerNorm -> activation, and a last Linear.

    Args:
        sizes: Inputs, hidden widths, outputs.
        norm: Whether to normalise.
        activation: Its class.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, width) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(fan_in, width))
        if i < len(sizes) - 2:
            layers += [nn.LayerNorm(width)] if norm else []
            layers.append(activation())
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, a 1x1 convolution where the shape changes (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(1, outputs)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(1, outputs)
        self.act2 = nn.ReLU()
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(1, outputs))

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        y = self.act1(self.norm1(self.conv1(x)))
        if self.stride != 1:
            # Pixels are left out before the 1x1 convolution, not by its stride: the same map, but the gradient of a
            # strided one may be wrong or never end with fewer than eight channels on CPUs (oneDNN, issue 6035).
            x = functional.max_pool2d(x, 1, self.stride)
        return self.act2(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """The residual network of CIFAR with GroupNorm(1): three stages, ``blocks`` each; 3 are ResNet20.

    Args:
        width: Channels of the first stage; the others have two and four times as many.
        blocks: Blocks of a stage.
        classes: Outputs.
    """

    def __init__(self, width: int = 16, blocks: int = 3, classes: int = 10, inputs: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, 1, 1, bias=False)
        self.norm = nn.GroupNorm(1, width)
        self.act = nn.ReLU()
        stages: list[nn.Module] = []
        before = width
        for stage in range(3):
            after = width * 2**stage
            for block in range(blocks):
                stages.append(ResidualBlock(before, after, 2 if stage and not block else 1))
                before = after
        self.blocks = nn.Sequential(*stages)
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch classes"]:
        return self.linear(self.blocks(self.act(self.norm(self.conv(x)))).mean((2, 3)))


class GraphNetwork(nn.Module):
    """x + mean of neighbours -> Linear -> BatchNorm -> GELU, three times, and a Linear, on one whole graph.

    Args:
        inputs: Node features.
        width: Of hidden layers.
        classes: Outputs.
        depth: Hidden layers.
        edge_index: The graph. It belongs to the network, which then maps node features to outputs alone.
    """

    edge_index: Tensor

    def __init__(
        self, inputs: int, width: int, classes: int, edge_index: Int[Tensor, "2 edges"], depth: int = 3
    ) -> None:
        super().__init__()
        from torch_geometric.nn import SimpleConv

        self.register_buffer("edge_index", edge_index, persistent=False)
        self.mean = SimpleConv(aggr="mean", combine_root="sum")
        sizes = [inputs] + [width] * depth
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.activations = nn.ModuleList(nn.GELU() for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "nodes inputs"]) -> Float[Tensor, "nodes classes"]:
        for linear, norm, activation in zip(self.linears, self.norms, self.activations, strict=True):
            x = activation(norm(linear(self.mean(x, self.edge_index))))
        return self.head(x)


CLASSIFIERS = OptionsRegistry("classifier")


class ClassifierOptions(Options):
    """A network to be trained.

    Attributes:
        reads: Form of its inputs.
    """

    reads: ClassVar[Form] = "vectors"

    name: str

    def build(self, data: Classification) -> nn.Module:
        """With fresh parameters, for inputs and classes of the data."""
        raise NotImplementedError


@CLASSIFIERS.add
class MLPOptions(ClassifierOptions):
    """Linear, LayerNorm, activation."""

    name: Literal["mlp"]
    hidden: list[int] = Field(min_length=1)
    norm: bool = True

    def build(self, data: Classification) -> nn.Module:
        return mlp([data.train[0].size(1), *self.hidden, data.classes], self.norm)


@CLASSIFIERS.add
class ResNetOptions(ClassifierOptions):
    """The residual network of CIFAR with GroupNorm(1)."""

    reads: ClassVar[Form] = "images"

    name: Literal["resnet"]
    width: int = Field(16, ge=2)
    blocks: int = Field(3, ge=1, description="blocks of each of three stages; 3 make ResNet20")

    def build(self, data: Classification) -> nn.Module:
        return ResNet(self.width, self.blocks, data.classes, data.train[0].size(1))


@CLASSIFIERS.add
class GraphNetworkOptions(ClassifierOptions):
    """x + mean of neighbours, Linear, BatchNorm, activation."""

    reads: ClassVar[Form] = "graph"

    name: Literal["gnn"]
    width: int = Field(64, ge=2)
    depth: int = Field(3, ge=1)

    def build(self, data: Classification) -> nn.Module:
        assert data.edge_index is not None
        return GraphNetwork(data.train[0].size(1), self.width, data.classes, data.edge_index, self.depth)


def check_fit(network: ClassifierOptions, data: ClassificationData) -> None:
    """Whether a network reads such data.

    Raises:
        ValueError: It does not.
    """
    if network.reads != data.form:
        raise ValueError(
            f"network.name={network.name} reads {network.reads}, data.name={data.name} gives {data.form}: they do not "
            "fit"
        )


def parameter_count(model: nn.Module) -> int:
    """Entries of all parameters."""
    return sum(p.numel() for p in model.parameters())


def seeded(build: Any, seed: int) -> Any:
    """What ``build()`` makes with PyTorch's global random numbers started at ``seed``, which are then put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
