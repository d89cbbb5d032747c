"""What a merge file may say, and how it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, ValidationError, field_validator, model_validator

from coset.core.errors import CosetError
from coset.core.files import takes_paths
from coset.core.options import Options, no_answer
from coset.core.outside import read_settings, read_text
from coset.core.registry import nearest
from coset.weights.merging.augmentation import AugmentationOptions
from coset.weights.merging.compatibility import Heads
from coset.weights.merging.merge_values import (
    PER_MODEL,
    Finite,
    Setting,
    Slice,
    checked,
    from_slices,
    within_limits,
)
from coset.weights.merging.methods import MERGE_METHODS, MergeMethod, Output
from coset.weights.merging.mixing import PerTensor
from coset.weights.merging.operators import Kind
from coset.weights.merging.trained import Init


class ModelOptions(Options):
    """One model to merge."""

    model: str = Field(description="folder of a checkpoint")
    parameters: dict[str, Setting] = Field({}, description="its own: weight, density, gamma, epsilon, scale")
    name: str | None = Field(None, description="of its task; that of the folder by default")
    inputs: str | None = Field(None, description="unlabelled samples: .safetensors, .npz, or .txt with a line a text")
    test: str | None = Field(None, description="samples to measure on, with a tensor `labels` if they are known")

    @field_validator("parameters")
    @classmethod
    def _known(cls, value: dict[str, Setting]) -> dict[str, Setting]:
        return checked(value, PER_MODEL)

    @property
    def task(self) -> str:
        return self.name or Path(self.model).name


class Parameters(Options):
    """What methods take; each uses what it knows."""

    model_config = ConfigDict(allow_inf_nan=False)

    weights: list[Finite] | None = Field(None, description="one a model, for weight in each model's parameters")
    weight: Setting | None = None
    density: Setting | None = None
    gamma: Setting | None = None
    epsilon: Setting | None = None
    t: Setting = Field(0.5, description="slerp, nearswap")
    lam: Setting | None = Field(None, validation_alias=AliasChoices("lambda", "lam"))
    scale: Setting | None = Field(None, description="task_arithmetic: the same as lambda; passthrough: of the model")
    normalize: bool | None = Field(None, validation_alias=AliasChoices("normalize", "normalize_weights"))
    rescale: bool | None = None
    select_topk: float = Field(1.0, gt=0, le=1, description="sce")
    max_iter: int = Field(10, ge=1, description="karcher")
    tol: float = Field(1e-5, gt=0, description="karcher")
    nuslerp_flatten: bool = Field(True, description="nuslerp: one angle for a tensor; else one for each of its rows")
    nuslerp_row_wise: bool = Field(False, description="nuslerp without flatten: along the first axis")
    filter_wise: bool = Field(False, description="model_stock: a cosine for each row")
    int8_mask: bool = Field(False, description="of mergekit: memory of masks; of no meaning here")
    alpha: float = Field(0.7, ge=0, le=1, description="regmean")
    rank: int = Field(12, ge=1)
    kind: Kind = "diagonal_and_low_rank"
    init: Init = "first"
    width: int | None = Field(None, ge=1, description="of the merged network")
    steps: int = Field(400, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    batch_size: int | None = Field(32, ge=1)
    cross: float = Field(0.0, ge=0)
    output: Output | None = Field(
        None, description="maps from merged features to the models': trained (free) or none (tied)"
    )
    augmentation: AugmentationOptions = Field(default_factory=lambda: AugmentationOptions.model_validate({}))
    tokens: int | None = Field(None, ge=2, description="texts are cut there; by default at 64, or at the last position")
    low_memory: bool | None = Field(
        None, description="fs_merge: models stay on disk, each layer is folded where it is used; by default if large"
    )

    @model_validator(mode="after")
    def _within_limits(self) -> Parameters:
        for key in ("density", "gamma", "epsilon"):
            if (value := getattr(self, key)) is not None:
                within_limits(key, value)
        return self

    @field_validator(
        "select_topk", "max_iter", "tol", "alpha", "rank", "width", "steps", "learning_rate", "weight_decay",
        "batch_size", "cross", "tokens", mode="before",
    )  # fmt: skip
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return no_answer(value)


_IN_FILES = {
    "lam": ("lam", "scale"), "weight": ("weight", "weights"), "flatten": ("nuslerp_flatten",),
    "row_wise": ("nuslerp_row_wise",),
}  # fmt: skip
"""What the settings of a tensor are called in a file, where it is otherwise."""
_FREE = {"int8_mask", "tokens"}
"""Settings of no method: one has no meaning here, texts are cut for measuring, too."""


class MergeFile(Options):
    """A merge, settled and checked."""

    merge_method: str
    models: list[ModelOptions] = Field(min_length=1)
    layers: list[Slice] = Field([], description="settings by layers, as slices of mergekit say them")
    base_model: str | None = Field(None, description="task_arithmetic: where the models began")
    parameters: Parameters = Field(default_factory=lambda: Parameters.model_validate({}))
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_shard_size: str = "5GB"
    heads: Heads | None = Field(
        None,
        description="classes of all side by side, one set of classes, or each model's own beside the first's; by "
        "default join for sequences and images, average for tokens and spans",
    )
    output: str = "merged"
    seed: int = Field(0, ge=0)

    @field_validator("merge_method")
    @classmethod
    def _known(cls, value: str) -> str:
        known = sorted(name for name, method in MERGE_METHODS.items() if method.files)
        if value not in known:
            raise ValueError(f"{value!r} is no method of ours: choose from {', '.join(known)}")
        return value

    @property
    def method(self) -> MergeMethod:
        """What is to be done."""
        return MERGE_METHODS[self.merge_method]

    @property
    def unused(self) -> list[str]:
        """Settings that are given and that the method does not look at."""
        uses = {each for name in self.method.settings for each in _IN_FILES.get(name, (name,))}
        given = [name for name in Parameters.model_fields if name in self.parameters.model_fields_set - uses - _FREE]
        of_tensor = self.method.settings if isinstance(self.method, PerTensor) else frozenset()
        sources = [source.parameters for part in self.layers for source in part.sources]
        for own in (*(m.parameters for m in self.models), *(part.parameters for part in self.layers), *sources):
            given += [name for name in own if ("lam" if name == "lambda" else name) not in of_tensor]
        return list(dict.fromkeys("lambda" if name == "lam" else name for name in given))

    @field_validator("seed", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return no_answer(value)

    @field_validator("models")
    @classmethod
    def _distinct(cls, value: list[ModelOptions]) -> list[ModelOptions]:
        names = [m.task for m in value]
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise ValueError(f"two models are named {twice[0]!r}: give each a name")
        return value


@takes_paths
def load(path: Path) -> MergeFile:
    """Read a merge file; folders and files in it are relative to where it lies.

    Raises:
        CosetError: It is missing, or says something that cannot be.
    """
    if not path.is_file():
        raise CosetError(f"merge file {path} does not exist")
    parts = re.split(r"^---.*$", read_text(path), flags=re.MULTILINE)
    if sum(bool(re.sub(r"#.*", "", part).strip()) for part in parts) > 1:
        raise CosetError(f"{path} holds several merges: give each a file of its own")
    values: dict[str, Any] = read_settings(path)
    try:
        made = MergeFile.model_validate(_of_mergekit({str(key): value for key, value in values.items()}))
    except ValidationError as error:
        raise CosetError(f"{path}: {_told(error.errors()[0])}") from error
    except CosetError as error:
        raise CosetError(f"{path}: {error}") from error
    made = _without_base(made)
    here = path.parent

    def place(name: str | None) -> str | None:
        return None if name is None else str(here / name)

    models = [
        m.model_copy(update={"model": place(m.model), "inputs": place(m.inputs), "test": place(m.test), "name": m.task})
        for m in made.models
    ]
    update = {"models": models, "output": place(made.output), "base_model": place(made.base_model)}
    return made.model_copy(update=update)


def _told(error: Any) -> str:
    """What is wrong in a file, with the key."""
    inner = [str(part) for part in error["loc"] if not re.match(r"(float|list\[|Filtered|function-)", str(part))]
    inner = ["slices" if part == "layers" else part for part in inner]
    key, value = ".".join(inner), repr(error["input"])
    value = value if len(value) < 80 else value[:80] + "..."
    if len(inner) < len(error["loc"]):
        return f"{key}: a number, a list of numbers, or a list of filter and value was expected, not {value}"
    if error["type"] == "extra_forbidden":
        near = nearest(inner[-1], [*MergeFile.model_fields, *Parameters.model_fields])
        return f"unknown key {key}={value}" + (f"; did you mean {near}?" if near else "")
    if error["type"] == "missing":
        return f"{key} is missing"
    said = error["msg"].removeprefix("Value error, ").removesuffix(", not true or false")  # the value is told below
    whole = key == "merge_method" or " has to be " in said or said.startswith("unknown key")
    return f"{key}: {said}" + ("" if whole else f", not {value}")


_OF_NO_USE = {
    "experts": "mixtures of experts are not made here",
    "adapters": "a LoRA is put into its model by coset lora apply MODEL ADAPTER OUTPUT",
    "tokenizer": "a tokenizer of several is not made: the models need one vocabulary",
    "chat_template": "chat templates are not chosen: that of the first model is kept",
    "modules": "models of several modules are merged by models: leave modules out",
}


def _of_mergekit(values: dict[str, Any]) -> dict[str, Any]:
    """A file as mergekit has it, in our words; others come back as they are.

    Raises:
        CosetError: It asks for what is not done here.
    """
    for key, why in _OF_NO_USE.items():
        if values.get(key) is not None:
            raise CosetError(f"{key}: {why}")
    if "out_path" in values:
        values.setdefault("output", values.pop("out_path"))
    values = _without_nothing(values)
    if "slices" in values:
        values = from_slices(values)
    _check_tokenizer(values.pop("tokenizer_source", None), values)
    if values.get("out_dtype") is not None:
        values["dtype"] = values.pop("out_dtype")
    values.pop("out_dtype", None)
    values.pop("name", None)
    return values


def _check_tokenizer(source: Any, values: dict[str, Any]) -> None:
    """Whether the tokenizer that a file asks for is that of its models, which have one vocabulary.

    Raises:
        CosetError: It is not.
    """
    if source == "union":
        raise CosetError("tokenizer_source: union: vocabularies are not joined; the models need one vocabulary")
    models = values.get("models")
    listed = [m.get("model") for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    if source is not None and str(source).removeprefix("model:") not in ("base", values.get("base_model"), *listed):
        raise CosetError(
            f"tokenizer_source: {source}: none of the models; the first one's tokenizer is kept, as all have one "
            "vocabulary"
        )


def _without_nothing(value: Any) -> Any:
    """Keys without a value are those that are not there."""
    if isinstance(value, dict):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    return [_without_nothing(inner) for inner in value] if isinstance(value, list) else value


def _without_base(made: MergeFile) -> MergeFile:
    """mergekit lists the base among the models: as the first of the two of SLERP, and for nothing elsewhere."""
    names = [m.model for m in made.models]
    if made.base_model not in names:
        if made.merge_method == "slerp" and made.base_model is not None and len(names) == 1:
            base = ModelOptions.model_validate({"model": made.base_model})
            return made.model_copy(update={"models": [base, *made.models], "base_model": None})
        return made
    at = names.index(made.base_model)
    rest = [m for i, m in enumerate(made.models) if i != at]
    if made.method.base or made.method.base_optional:
        order = [i for i in range(len(names)) if i != at]
        layers = [_renumbered(s, order) for s in made.layers]
        return made.model_copy(update={"models": rest, "layers": layers})
    order = [at, *(i for i in range(len(names)) if i != at)]
    layers = [_renumbered(s, order) for s in made.layers]
    return made.model_copy(update={"models": [made.models[at], *rest], "layers": layers, "base_model": None})


def _renumbered(one: Slice, order: list[int]) -> Slice:
    """A slice whose sources are of these models alone, in this order, and numbered so."""
    sources = sorted((s for s in one.sources if s.model in order), key=lambda s: order.index(s.model))
    return one.model_copy(update={"sources": [s.model_copy(update={"model": order.index(s.model)}) for s in sources]})
