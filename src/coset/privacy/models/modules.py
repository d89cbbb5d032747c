"""Networks of the user's own for audits: a function in a Python file that makes one, weights from a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coset.core.errors import CosetError
from coset.core.outside import read_saved, read_tensors

SAVED = (".pt", ".pth", ".bin", ".ckpt")


class OnFlatInputs(nn.Module):
    """A network of inputs [n, *shape] as one of flat inputs [n, d]; a single output is squeezed away.

    Args:
        model: The network.
        shape: Of one input.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int]):
        super().__init__()
        self.model, self.shape = model, tuple(shape)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Tensor:
        out = self.model(x.reshape(-1, *self.shape))
        out = out.reshape(*x.shape[:-1], -1)
        return out.squeeze(-1) if out.size(-1) == 1 else out


def load_module(source: str, weights: Path, shape: Sequence[int]) -> OnFlatInputs:
    """A network with its trained weights, in float64 and evaluation mode.

    Args:
        source: ``FILE.py:NAME``, a class or function without arguments that makes the network. The file is run: name
            only one of your own.
        weights: Its state dict, as safetensors or by ``torch.save``.
        shape: Of one input as the network takes it, without the batch.

    Raises:
        CosetError: The file does not hold the function, makes no network, or the weights are others.
    """
    name, _, factory = source.rpartition(":")
    path = Path(name)
    if not factory or path.suffix != ".py" or not path.is_file():
        raise CosetError(f"{source!r}: expected FILE.py:NAME with an existing file, e.g. mymodel.py:make")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, factory, None)):
            raise CosetError(f"{path} holds no function or class {factory!r}")
        model = getattr(module, factory)()
    except CosetError:
        raise
    except Exception as error:
        raise CosetError(f"{source}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(model, nn.Module):
        raise CosetError(f"{source} makes a {type(model).__name__}, no torch.nn.Module")
    state = read_state(weights)
    try:
        model.load_state_dict(state)
    except Exception as error:
        raise CosetError(f"{weights} does not go with {source}: {' '.join(str(error).split())}") from error
    model = OnFlatInputs(model.double().eval(), shape)
    try:
        with torch.no_grad():
            model(torch.zeros(2, torch.Size(shape).numel(), dtype=torch.float64))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CosetError(f"{source} does not take inputs of shape {tuple(shape)}: {reason}") from error
    return model


def read_state(weights: Path) -> dict[str, Tensor]:
    """Tensors by name, of a safetensors file or one that ``torch.save`` wrote (nothing in it is executed).

    Raises:
        CosetError: The file cannot be read, holds no state dict, or numbers that are not finite.
    """
    if weights.suffix in SAVED:
        state = read_saved(weights)
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise CosetError(f"{weights}: holds no state dict; save model.state_dict()")
    else:
        state = read_tensors(weights)
    for name, value in state.items():
        if value.is_complex() or not bool(value.isfinite().all()):
            raise CosetError(f"{weights}: {name} holds numbers that are not finite")
    return state
