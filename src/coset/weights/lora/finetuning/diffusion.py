"""Make a collection from a text-to-image-like model: LoRAs of a small class-conditional diffusion transformer.

The base is a DiT of ``diffusers`` (v-prediction, MNIST at 14 x 14), trained here once: "no class" is a class too (as in
classifier-free guidance). Each adapter is trained with PEFT on images of a random non-empty subset of the digits, all
under "no class", as a DreamBooth LoRA is under one prompt: what it was trained on is in its attention projections only.

Alignment score, the stand-in for the CLIP score of the paper: images are sampled for every class from fixed noise with
a few DDIM steps; the score is the mean probability of the class asked for under a classifier trained on other images.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from coset.core.data_files import data_file
from coset.core.errors import CosetError, require
from coset.core.files import make_folder, replacing
from coset.core.outside import read_arrays, read_tensors
from coset.runs.fit import descend
from coset.weights.lora.finetuning.finetune import Draw, draw
from coset.weights.lora.finetuning.sources import ADAPTER_SOURCES, BASE, AdapterSource, Maker

CLASSES, NO_CLASS, SIDE = 10, 10, 14
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class BaseSize:
    """Of the base model and its training.

    Attributes:
        blocks: Transformer blocks; each has four attention projections.
        width: Channels; heads have 16.
        steps: Of AdamW, on batches of 128.
    """

    blocks: int = 3
    width: int = 64
    steps: int = 1200


class DiffusionBase:
    """The trained base model with its schedule, and the classifier that judges its images.

    Args:
        folder: Where both are kept; they are trained if they are not there.
        size: Of the base; must be that of an earlier call.
        mnist: ``mnist.npz`` or its folder; looked for where data files are by default.
        seed: Of both.
        sampling_steps: Of DDIM.
        images: For each class, on which the alignment score is measured.

    Raises:
        CosetError: ``diffusers`` or MNIST is not there, or the folder holds a base of another size.
    """

    def __init__(
        self, folder: Path, size: BaseSize, *, mnist: str | None = None, seed: int = 0, sampling_steps: int = 10,
        images: int = 8,
    ):  # fmt: skip
        diffusers = require("diffusers", "weights")
        self.images, self.labels, held_out = _mnist(mnist)
        self.schedule = diffusers.DDIMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
        self.schedule.set_timesteps(sampling_steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = diffusers.DiTTransformer2DModel(
                num_attention_heads=size.width // 16, attention_head_dim=16, in_channels=1, out_channels=1,
                num_layers=size.blocks, sample_size=SIDE, patch_size=2, num_embeds_ada_norm=CLASSES,
            )  # fmt: skip
            self.classifier = _classifier()
            _kept(self.model, folder / "base.safetensors", lambda: self._train_base(size.steps, seed))
            _kept(self.classifier, folder / "classifier.safetensors", lambda: self._train_classifier(held_out, seed))
        self.model.requires_grad_(False).eval()
        self.classifier.requires_grad_(False).eval()
        self.held_out_accuracy = self._judged(held_out)
        generator = torch.Generator().manual_seed(seed + 1)
        self.noise = torch.randn(images * (CLASSES + 1), 1, SIDE, SIDE, generator=generator)
        self.asked = torch.arange(CLASSES + 1).repeat_interleave(images)

    def _train_base(self, steps: int, seed: int) -> None:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3, weight_decay=0.0)
        plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2))
        generator = torch.Generator().manual_seed(seed)
        self.model.train()
        rows = (torch.randint(len(self.labels), (128,), generator=generator) for _ in range(steps))
        # In training the model itself drops one label in ten.
        descend(optimizer, lambda r: self.loss(self.images[r], self.labels[r], generator), rows, schedule=plan)
        self.model.eval()

    def _train_classifier(self, data: tuple[Tensor, Tensor], seed: int) -> None:
        optimizer = torch.optim.AdamW(self.classifier.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(seed)
        training = len(data[0]) * 4 // 5
        batches = (rows for _ in range(3) for rows in torch.randperm(training, generator=generator).split(64))
        descend(optimizer, lambda rows: F.cross_entropy(self.classifier(data[0][rows]), data[1][rows]), batches)

    @torch.no_grad()
    def _judged(self, data: tuple[Tensor, Tensor]) -> float:
        """Accuracy of the classifier on real images that it was not trained on."""
        x, y = (part[len(data[0]) * 4 // 5 :] for part in data)
        return float((self.classifier(x).argmax(1) == y).double().mean())

    def loss(
        self, images: Float[Tensor, "batch 1 side side"], labels: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Tensor:
        """Mean squared error of the velocity at random times."""
        noise = torch.randn(images.shape, generator=generator)
        at = torch.randint(self.schedule.config.num_train_timesteps, (len(images),), generator=generator)
        found = self.model(self.schedule.add_noise(images, noise, at), timestep=at, class_labels=labels).sample
        return F.mse_loss(found, self.schedule.get_velocity(images, noise, at))

    @torch.no_grad()
    def sample(self) -> Float[Tensor, "images 1 side side"]:
        """Images of all classes, and of none, from noise that is always the same; DDIM without new noise."""
        x = self.noise
        for at in self.schedule.timesteps:
            found = self.model(x, timestep=at.expand(len(x)), class_labels=self.asked).sample
            x = self.schedule.step(found, at, x).prev_sample
        return x

    @torch.no_grad()
    def scores(self, members: tuple[bool, ...] | None = None) -> dict[str, float]:
        """Alignment: mean probability of the class asked for. Fidelity: share of "no class" that is a class of ours."""
        chances = torch.softmax(self.classifier(self.sample()), -1)
        asked = self.asked < CLASSES
        result = {"alignment": float(chances[asked].gather(1, self.asked[asked, None]).double().mean())}
        if members is not None:
            result["fidelity"] = float(chances[~asked][:, torch.tensor(members)].sum(1).double().mean())
        return result

    def finetune(self, drawn: Draw, folder: Path, *, rank: int = 4, alpha: int = 8, batch: int = 16) -> dict[str, Any]:
        """Train one adapter, save it as a PEFT folder, and tell what it was made of and how good it is.

        Returns:
            Membership (0 or 1) by digit, learning rate, steps, alignment, fidelity, seconds of training and evaluation.
        """
        with adapted(self.model, rank, alpha, drawn.seed) as wrapped:
            started = time.process_time()
            rows = torch.tensor(drawn.members)[self.labels].nonzero().flatten()
            parameters = [p for p in wrapped.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=drawn.learning_rate, weight_decay=0.0)
            generator = torch.Generator().manual_seed(drawn.seed)
            chosen = (rows[torch.randint(len(rows), (batch,), generator=generator)] for _ in range(drawn.steps))
            asked = torch.full((batch,), NO_CLASS)
            descend(optimizer, lambda some: self.loss(self.images[some], asked, generator), chosen)
            trained = time.process_time()
            scores = self.scores(drawn.members)
            evaluated = time.process_time()
            wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        members = {f"trained_on_{digit}": int(m) for digit, m in enumerate(drawn.members)}
        return {
            **members, **scores, "steps": drawn.steps, "log10_learning_rate": math.log10(drawn.learning_rate),
            "rank": rank, "seed": drawn.seed, "training_seconds": round(trained - started, 3),
            "evaluation_seconds": round(evaluated - trained, 3),
        }  # fmt: skip


@ADAPTER_SOURCES.add
class DiffusionSource(AdapterSource):
    """Adapters of this module's base, which is trained first and kept in the collection."""

    name: Literal["diffusion"]
    mnist: str | None = Field(None, description="mnist.npz; looked for where data files are by default")
    blocks: int = Field(3, ge=1)
    width: int = Field(64, ge=16, multiple_of=16)
    base_steps: int = Field(1200, ge=1)
    rank: int = Field(4, ge=1)
    steps: tuple[int, int] = (30, 90)
    learning_rates: tuple[float, float] = (1e-3, 1e-2)
    batch_size: int = Field(16, ge=1)
    sampling_steps: int = Field(10, ge=1)
    images: int = Field(8, ge=1, description="for each class, on which alignment is measured")

    def open(self, folder: Path, seed: int) -> Maker:
        return _Diffusion(self, folder, seed)


class _Diffusion:
    def __init__(self, source: DiffusionSource, folder: Path, seed: int):
        self.source, self.seed = source, seed
        make_folder(folder / BASE)
        self.model = DiffusionBase(
            folder / BASE, BaseSize(source.blocks, source.width, source.base_steps), mnist=source.mnist, seed=seed,
            sampling_steps=source.sampling_steps, images=source.images,
        )  # fmt: skip

    @property
    def base(self) -> dict[str, float]:
        return {**self.model.scores(), "classifier_accuracy": self.model.held_out_accuracy}

    def make(self, number: int, place: Path) -> dict[str, Any]:
        s = self.source
        drawn = draw(CLASSES, self.seed * 1_000_003 + number, s.learning_rates, s.steps)
        return self.model.finetune(drawn, place, rank=s.rank, alpha=2 * s.rank, batch=s.batch_size)


@contextmanager
def adapted(model: nn.Module, rank: int, alpha: int, seed: int) -> Any:
    """A model with a fresh adapter on its attention projections; afterwards it is as it was."""
    peft = require("peft", "weights")
    torch.manual_seed(seed)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS)))
    wrapped.peft_config["default"].base_model_name_or_path = "coset/mnist-dit"
    try:
        yield wrapped
    finally:
        wrapped.unload().requires_grad_(False).eval()
        if hasattr(model, "peft_config"):
            del model.peft_config


def _kept(model: nn.Module, file: Path, train: Any) -> None:
    """Weights from the file; trained and written there first if it does not exist."""
    safetensors = require("safetensors.torch", "weights")
    if not file.is_file():
        train()
        with replacing(file) as part:
            safetensors.save_file({name: t.contiguous() for name, t in model.state_dict().items()}, str(part))
    try:
        model.load_state_dict(read_tensors(file))
    except Exception as error:
        raise CosetError(f"{file} is damaged, or of another size: remove it, and it is made again") from error


def _classifier() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 9, 64), nn.ReLU(), nn.Linear(64, CLASSES),
    )  # fmt: skip


def _mnist(path: str | None) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Images at 14 x 14 in [-1, 1] and labels to train on; the 10,000 test images are the classifier's."""
    data = read_arrays(data_file("images/mnist.npz", path))
    parts = []
    for split in ("train", "test"):
        x = torch.from_numpy(data[f"{split}_images"]).float()[:, None] / 127.5 - 1
        parts.append((F.avg_pool2d(x, 2), torch.from_numpy(data[f"{split}_labels"].astype(np.int64))))
    return (*parts[0], parts[1])
