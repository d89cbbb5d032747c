"""Networks to merge and their tasks, as recipes name them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator

from coset.core.choices import OptionsRegistry
from coset.core.options import Options
from coset.weights.merging.augmentation import AugmentationOptions, augmented
from coset.weights.merging.encoders import Encoder, Inputs, MLPEncoder
from coset.weights.merging.tasks import END, IMAGES, PAD, START, SYNTHETIC, Task, image_task, text_tasks
from coset.weights.sentences import TEXTS

Form = Literal["images", "texts"]
MERGED_NETWORKS = OptionsRegistry("network to merge")


class TaskOptions(Options):
    """Images or texts; of images, some classes."""

    data: str
    classes: list[int] | None = None

    @field_validator("data")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in (*IMAGES, *TEXTS, *SYNTHETIC):
            raise ValueError(f"data {value!r} is unknown; choose from {', '.join((*IMAGES, *TEXTS, *SYNTHETIC))}")
        return value

    @property
    def form(self) -> Form:
        """What it is made of."""
        return "images" if self.data in IMAGES else "texts"


class NetworkOptions(Options):
    """A kind of network to merge.

    Attributes:
        reads: Of what tasks have to be made.
    """

    reads: ClassVar[Form] = "images"

    name: str

    @property
    def alike(self) -> bool:
        """Whether all teachers are of the same sizes."""
        return True

    def tasks(self, tasks: Sequence[TaskOptions], seed: int, limit: int) -> list[Task]:
        """The tasks, as the network reads them.

        Raises:
            CosetError: Data are missing.
        """
        return [image_task(t.data, t.classes, seed=seed, limit=limit) for t in tasks]

    def augmented(self, inputs: Inputs, options: AugmentationOptions, seed: int) -> Inputs:
        """Samples as the network reads them, and after them those made of them."""
        return augmented(inputs, options, seed)

    def build(self, task: Task, number: int, seed: int) -> Encoder:
        """The untrained network of the teacher of this number."""
        raise NotImplementedError


@MERGED_NETWORKS.add
class MLPNetwork(NetworkOptions):
    """Linear and ReLU, on flattened images."""

    name: Literal["mlp"]
    sizes: list[int] = [64, 64, 64]
    other_sizes: list[list[int]] | None = Field(None, description="sizes of the 2nd, 3rd, ... teacher, if they differ")

    @property
    def alike(self) -> bool:
        return not self.other_sizes

    def tasks(self, tasks: Sequence[TaskOptions], seed: int, limit: int) -> list[Task]:
        made = super().tasks(tasks, seed, limit)
        return [replace(t, train=_flat(t.train), test=_flat(t.test)) for t in made]

    def augmented(self, inputs: Inputs, options: AugmentationOptions, seed: int) -> Inputs:
        """Rows are squares of one channel, or of three."""
        assert isinstance(inputs, torch.Tensor)
        pixels = inputs.size(1)
        channels = 1 if math.isqrt(pixels) ** 2 == pixels else 3
        pictures = inputs.view(len(inputs), channels, math.isqrt(pixels // channels), -1)
        return _flat(augmented(pictures, options, seed))

    def build(self, task: Task, number: int, seed: int) -> Encoder:
        assert isinstance(task.train, torch.Tensor)
        sizes = self.other_sizes[number - 1] if number and self.other_sizes else self.sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return MLPEncoder.of([task.train.size(1), *sizes])


@MERGED_NETWORKS.add
class ViTNetwork(NetworkOptions):
    """``transformers.ViTModel``."""

    name: Literal["vit"]
    width: int = Field(64, ge=4)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    hidden: int = Field(128, ge=4)
    patch: int = Field(7, ge=1)
    activation: Literal["gelu", "relu"] = "gelu"

    def build(self, task: Task, number: int, seed: int) -> Encoder:
        from transformers import ViTConfig

        from coset.weights.merging.transformer_encoders import TransformerEncoder, build

        assert isinstance(task.train, torch.Tensor)
        config = ViTConfig(
            hidden_size=self.width, num_hidden_layers=self.layers, num_attention_heads=self.heads,
            intermediate_size=self.hidden, patch_size=self.patch, image_size=task.train.size(-1),
            num_channels=task.train.size(1), hidden_act=self.activation,
        )  # fmt: skip
        return TransformerEncoder(build(config, seed=seed))


class TextNetwork(NetworkOptions):
    """A transformer of sentences."""

    reads: ClassVar[Form] = "texts"

    width: int = Field(64, ge=4)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    hidden: int = Field(128, ge=4)
    tokens: int = Field(24, ge=4)
    vocabulary: int = Field(4000, ge=10)
    dropout: float = Field(0.1, ge=0, lt=1)

    def tasks(self, tasks: Sequence[TaskOptions], seed: int, limit: int) -> list[Task]:
        """Sentences in one vocabulary."""
        sources = [t.data for t in tasks]
        return text_tasks(sources, tokens=self.tokens, vocabulary=self.vocabulary, seed=seed, limit=limit)[0]


@MERGED_NETWORKS.add
class BertNetwork(TextNetwork):
    """``transformers.BertModel``."""

    name: Literal["bert"]

    def build(self, task: Task, number: int, seed: int) -> Encoder:
        from transformers import BertConfig

        from coset.weights.merging.transformer_encoders import TransformerEncoder, build

        config = BertConfig(
            vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, intermediate_size=self.hidden, max_position_embeddings=self.tokens,
            hidden_dropout_prob=self.dropout, attention_probs_dropout_prob=self.dropout,
        )  # fmt: skip
        return TransformerEncoder(build(config, seed=seed))


@MERGED_NETWORKS.add
class GPT2Network(TextNetwork):
    """``transformers.GPT2Model``: a decoder with learned positions, read at its last token."""

    name: Literal["gpt2"]

    def build(self, task: Task, number: int, seed: int) -> Encoder:
        from transformers import GPT2Config

        from coset.weights.merging.transformer_encoders import TransformerEncoder, build

        config = GPT2Config(
            vocab_size=self.vocabulary, n_embd=self.width, n_layer=self.layers, n_head=self.heads,
            n_inner=self.hidden, n_positions=self.tokens, resid_pdrop=self.dropout, embd_pdrop=self.dropout,
            attn_pdrop=self.dropout, bos_token_id=START, eos_token_id=END,
        )  # fmt: skip
        return TransformerEncoder(build(config, seed=seed))


@MERGED_NETWORKS.add
class LlamaNetwork(TextNetwork):
    """``transformers.LlamaModel``: a decoder with rotary positions, RMSNorm, a gated MLP and grouped heads, read at its
    last token. It drops out nothing but scores of attention.
    """

    name: Literal["llama"]
    groups: int = Field(2, ge=1, description="key and value heads, each of as many query heads")

    @model_validator(mode="after")
    def _whole(self) -> LlamaNetwork:
        if self.width % (2 * self.heads) or self.heads % self.groups:
            raise ValueError(
                f"width={self.width} is not a multiple of 2 heads (heads={self.heads}), or heads not one of "
                f"groups={self.groups}"
            )
        return self

    def build(self, task: Task, number: int, seed: int) -> Encoder:
        from transformers import LlamaConfig

        from coset.weights.merging.transformer_encoders import TransformerEncoder, build

        config = LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.groups, intermediate_size=self.hidden,
            max_position_embeddings=self.tokens, attention_dropout=self.dropout, bos_token_id=START, eos_token_id=END,
            pad_token_id=PAD,
        )  # fmt: skip
        return TransformerEncoder(build(config, seed=seed))


def _flat(inputs: Inputs) -> torch.Tensor:
    assert isinstance(inputs, torch.Tensor)
    return inputs.flatten(1)
