"""The models that a comparison can fit, each registered where it is written, with what has to be known of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coset.core.options import Options
from coset.core.registry import Registry
from coset.weights.lora.data.factors import Factors, Layout, count, select
from coset.weights.lora.models.base import LolModel
from coset.weights.lora.models.fitting import Examples, Row, Task, fit


class ModelSizes(Options):
    """Sizes that the models share."""

    width: int = Field(16, ge=1, description="k of the GL-nets")
    hidden: int = Field(128, ge=1, description="width of the head")
    dense_hidden: int = Field(32, ge=1, description="width of the head on dense updates")
    token_width: int = Field(64, ge=8, multiple_of=8, description="width of the transformers")
    norm: bool = Field(False, description="GLNorm in the GL-nets")
    head: Literal["full", "mean", "shared", "transformer"] = Field("full", description="of the GL-nets")
    gate: Literal["sign", "bilinear", "bilinear-across"] = Field("sign", description="of GL-nets with two layers")
    dropout: float = Field(0.0, ge=0, lt=1)


@dataclass(frozen=True)
class Setting:
    """What a model is built for.

    Attributes:
        layout: Layers of the adapters.
        training: Factors of the training set.
        outputs: Columns of the targets.
        sizes: Of the model.
        seed: Of its weights, its template and its batches.
        template: Factors of one training adapter, drawn by the seed.
    """

    layout: Layout
    training: Factors
    outputs: int
    sizes: ModelSizes
    seed: int = 0
    template: Factors = ()


class LoraModel(ABC):
    """A model as a comparison knows it.

    Attributes:
        any_rank: Whether no weight depends on the rank of adapters; others take ranks up to that of training.
        built_untrained: Whether there is one before it is fitted, whose symmetry can be measured.
    """

    any_rank: bool
    built_untrained: bool = True

    @abstractmethod
    def build(self, setting: Setting) -> LolModel:
        """An untrained one; its weights follow from the seed."""

    @abstractmethod
    def fit(
        self, setting: Setting, task: Task, training: Examples, validation: Examples, **how: Any
    ) -> tuple[nn.Module, list[Row]]:
        """A fitted one, with its losses by epoch if it has any; ``how`` are those of training by gradients."""

    @abstractmethod
    def restored(self, setting: Setting, state: Mapping[str, Tensor]) -> nn.Module:
        """A fitted one from its state; of the training set two adapters are enough."""

    def share(self, outputs: Tensor) -> Tensor:
        """Outputs of a classification as probabilities."""
        return torch.sigmoid(outputs)


class ByGradients(LoraModel):
    """Trained on batches.

    Args:
        make: Makes an untrained one.
        any_rank: See :class:`LoraModel`.
    """

    def __init__(self, make: Callable[[Setting], LolModel], any_rank: bool):
        self._make, self.any_rank = make, any_rank

    def build(self, setting: Setting) -> LolModel:
        torch.manual_seed(setting.seed)
        template = select(setting.training, torch.randint(count(setting.training), (1,)))
        return self._make(replace(setting, template=template))

    def fit(
        self, setting: Setting, task: Task, training: Examples, validation: Examples, **how: Any
    ) -> tuple[nn.Module, list[Row]]:
        model = self.build(setting)
        return model, fit(model, task, training, validation, seed=setting.seed, **how)

    def restored(self, setting: Setting, state: Mapping[str, Tensor]) -> nn.Module:
        model = self.build(setting)
        model.load_state_dict(state)
        return model.eval()


LORA_MODELS: Registry[LoraModel] = Registry("LoRA model")


def lora_model(name: str, *, any_rank: bool = False) -> Callable[[Callable[[Setting], Any]], Callable[[Setting], Any]]:
    """A decorator for a function that makes an untrained model, which is then trained by gradients.

    Args:
        name: Of the model, in recipes and tables.
        any_rank: Whether no weight depends on the rank of adapters.
    """

    def add(make: Callable[[Setting], Any]) -> Callable[[Setting], Any]:
        LORA_MODELS.register(name)(ByGradients(make, any_rank))
        return make

    return add


def build(
    name: str, layout: Layout, training: Factors, outputs: int, *, seed: int = 0, **sizes: Any
) -> LolModel:  # fmt: skip
    """An untrained model by name; ``sizes`` are those of :class:`ModelSizes`.

    Raises:
        CosetError: There is no such model.
    """
    setting = Setting(layout, training, outputs, ModelSizes.model_validate(sizes), seed)
    return LORA_MODELS[name].build(setting)
