"""Files of LoRAs as tools write them, and what they stand for: ``python tests/exporters.py`` prints a table.

A case writes a file or a folder and gives the updates by layer, those of PEFT itself where PEFT wrote it, or the
beginning of the text by which it has to be refused.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Wanted = Mapping[str, Tensor] | str
CASES: dict[str, Callable[[Path], tuple[Path, Wanted]]] = {}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 4)
        self.conv = nn.Conv2d(3, 5, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.second(self.first(self.embed(x)))) + self.conv(torch.ones(1, 3, 3, 3)).mean()


def trained(config, net=None, seed=0):
    """A PEFT model all of whose trained numbers are drawn."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(net or Net(), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            drawn = torch.randn_like(parameter)
            with torch.no_grad():
                parameter.copy_(drawn.abs() + 0.5 if "magnitude" in name else drawn)
    return model.eval()


def save(model, folder, **options):
    """As PEFT does it, whose check of shapes warns of every bias of ``lora_B``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, **options)


def loaded(folder):
    """As PEFT does it, which warns of every rank pattern of its AdaLoRA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(Net(), folder)


def updates_of(model):
    """What PEFT adds to each weight."""
    found = {}
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            found[name] = delta.mT if getattr(module, "fan_in_fan_out", False) else delta
    return found


def case(name):
    def add(function):
        CASES[name] = function
        return function

    return add


def by_peft(name, config, wanted=None, **options):
    def write(folder):
        model = trained(config())
        save(model, folder, **options)
        return folder, updates_of(model) if wanted is None else wanted

    CASES[name] = write


def lora(**options):
    return lambda: peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": ["first", "second"], **options})


by_peft("PEFT: alpha unlike the rank", lora())
by_peft("PEFT: rank and alpha alike", lora(lora_alpha=3))
by_peft("PEFT: negative alpha", lora(lora_alpha=-5))
by_peft("PEFT: rsLoRA", lora(use_rslora=True))
by_peft("PEFT: rank and alpha patterns", lora(rank_pattern={"second": 2}, alpha_pattern={"first": 7}))
by_peft("PEFT: patterns that are expressions", lora(rank_pattern={"f.rst|other": 2}, alpha_pattern={"^sec[a-z]+": 7}))
by_peft("PEFT: patterns with rsLoRA", lora(rank_pattern={"second": 2}, use_rslora=True))
by_peft("PEFT: embedding", lora(target_modules=["embed", "first"]))
by_peft("PEFT: convolution", lora(target_modules=["conv"]))
by_peft("PEFT: DoRA", lora(use_dora=True))
by_peft("PEFT: DoRA of a convolution", lora(target_modules=["conv"], use_dora=True))
by_peft("PEFT: DoRA of an embedding", lora(target_modules=["embed", "first"], use_dora=True))
by_peft("PEFT: lora_bias", lora(lora_bias=True))
by_peft("PEFT: modules_to_save", lora(modules_to_save=["head"]))
by_peft("PEFT: biases trained", lora(bias="lora_only"))
by_peft("PEFT: all linear layers", lora(target_modules="all-linear"))
by_peft("PEFT: .bin", lora(), safe_serialization=False)
by_peft(
    "PEFT: AdaLoRA, all ranks kept",
    lambda: peft.AdaLoraConfig(
        target_modules=["first"], init_r=3, target_r=2, lora_alpha=6, total_step=10, tinit=1, tfinal=1
    ),
)


@case("PEFT: AdaLoRA, pruned")
def adalora_pruned(folder):
    model = trained(
        peft.AdaLoraConfig(
            target_modules=["first", "second"], init_r=6, target_r=4, lora_alpha=5, total_step=10, tinit=1, tfinal=1
        )
    )
    prune(model, {"first": [True, False, False, True, False, False], "second": [True] * 6})
    save(model, folder)
    return folder, updates_of(loaded(folder))


def prune(model, kept):
    """As the last step of AdaLoRA's training leaves a model: what goes is zero, the configuration tells what stays."""
    for name, mask in kept.items():
        diagonal = model.base_model.model.get_submodule(name).lora_E["default"]
        diagonal.data[~torch.tensor(mask)] = 0
    model.peft_config["default"].rank_pattern = {f"{name}.lora_E": mask for name, mask in kept.items()}


by_peft("PEFT: LoHa", lambda: peft.LoHaConfig(target_modules=["first", "second"], r=3, alpha=5))
by_peft("PEFT: LoHa of a convolution", lambda: peft.LoHaConfig(target_modules=["conv"], r=2, alpha=5))
by_peft(
    "PEFT: LoHa of a convolution, with cores",
    lambda: peft.LoHaConfig(target_modules=["conv"], r=2, alpha=5, use_effective_conv2d=True),
)
by_peft("PEFT: LoKr", lambda: peft.LoKrConfig(target_modules=["first", "second"], r=1, alpha=5))
by_peft(
    "PEFT: LoKr, both sides low-rank",
    lambda: peft.LoKrConfig(target_modules=["first", "second"], r=1, alpha=5, decompose_both=True),
)
by_peft("PEFT: LoKr of a convolution", lambda: peft.LoKrConfig(target_modules=["conv"], r=2, alpha=5))
by_peft(
    "PEFT: LoKr of a convolution, with a core",
    lambda: peft.LoKrConfig(target_modules=["conv"], r=1, alpha=5, use_effective_conv2d=True),
)
by_peft(
    "PEFT: KaSA",
    lora(kasa_config=peft.tuners.lora.config.KasaConfig()),
    "unsupported variant KaSA (kasa_config is set)",
)
by_peft("PEFT: VeRA", lambda: peft.VeraConfig(target_modules=["first"], r=2), "unsupported tuner VERA")
by_peft("PEFT: IA3", lambda: peft.IA3Config(target_modules=["first"], feedforward_modules=[]), "unsupported tuner IA3")


def spoilt(name, wanted, **values):
    """A folder of PEFT with other values in its configuration."""

    def write(folder):
        model = trained(lora()())
        save(model, folder)
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
        return folder, updates_of(model) if wanted is None else wanted

    CASES[name] = write


SAID = "adapter_config.json: "
spoilt("configuration: alpha is infinite", f"{SAID}lora_alpha: Input should be a finite", lora_alpha=float("inf"))
spoilt("configuration: alpha is not a number", f"{SAID}lora_alpha: Input should be a finite", lora_alpha=float("nan"))
spoilt("configuration: rsLoRA in quotes", f"{SAID}use_rslora: Input should be a valid boolean", use_rslora="false")
spoilt("configuration: a rank in quotes", f"{SAID}r: Input should be a valid integer", r="3")
spoilt("configuration: a pattern on which others hang", None, rank_pattern={"(a|a)*b(a+)+": 2})
spoilt(
    "configuration: a pattern that looks ahead",
    "the pattern of layers '(?=a)b' is not read",
    rank_pattern={"(?=a)b": 2},
)
spoilt("configuration: another rank", "first has rank 3, but adapter_config.json says 4", r=4)


def tensors(names, rank=2, alpha: float | Tensor = 3.0, a="lora_down.weight", b="lora_up.weight", seed=0):
    """Factors by name and what they stand for."""
    generator = torch.Generator().manual_seed(seed)
    state, wanted = {}, {}
    for name, (n, m) in names.items():
        down, up = torch.randn(rank, m, generator=generator), torch.randn(n, rank, generator=generator)
        state |= {f"{name}.{a}": down, f"{name}.{b}": up}
        if alpha is not None:
            state[f"{name}.alpha"] = torch.as_tensor(alpha)
        wanted[name] = up @ down * (1 if alpha is None else float(alpha) / rank)
    return state, wanted


def in_a_file(name, layers, change=None, metadata=None, **options):
    """``change`` gets the state and what is wanted, in place, or gives the text of a refusal."""

    def write(folder):
        state, wanted = tensors(layers, **options)
        said = change(state, wanted) if change else None
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "lora.safetensors", metadata=metadata)
        return folder / "lora.safetensors", said or wanted

    CASES[name] = write


ATTENTION = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
in_a_file("kohya: SD 1.5", {f"lora_unet_{ATTENTION}": (6, 4), "lora_te_text_model_encoder_layers_0_mlp_fc1": (6, 4)})
in_a_file("kohya: SDXL", {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": (6, 4),
                          "lora_te2_text_model_encoder_layers_3_self_attn_q_proj": (6, 4)})  # fmt: skip
in_a_file("kohya: alpha as a whole number", {f"lora_unet_{ATTENTION}": (6, 4)}, alpha=torch.tensor(3))
in_a_file("kohya: alpha in the header", {f"lora_unet_{ATTENTION}": (6, 4)}, metadata={"ss_network_alpha": "3.0"},
          change=lambda state, wanted: state.pop(f"lora_unet_{ATTENTION}.alpha") and None)  # fmt: skip
in_a_file("kohya: Flux, q, k, v in one", {"lora_unet_double_blocks_0_img_attn_qkv": (18, 4)})
in_a_file("musubi: Wan", {"lora_unet_blocks_0_self_attn_q": (6, 4), "lora_unet_blocks_0_ffn_0": (6, 4)})
in_a_file("ComfyUI: Wan, dots and alpha", {"diffusion_model.blocks.0.cross_attn.k": (6, 4)})
in_a_file("ComfyUI: Hunyuan, dots and alpha", {"diffusion_model.double_blocks.0.img_attn.qkv": (18, 4)})
in_a_file("HunyuanVideo: names of its release", {"diffusion_model.double_blocks.0.img_attn_qkv": (18, 4),
          "diffusion_model.single_blocks.0.modulation.linear": (6, 4)})  # fmt: skip
in_a_file("musubi: HunyuanVideo", {"lora_unet_double_blocks_0_img_mlp_fc1": (6, 4),
          "lora_unet_txt_in_individual_token_refiner_blocks_0_self_attn_qkv": (18, 4)})  # fmt: skip
in_a_file("musubi: HunyuanVideo, alpha as float16", {"lora_unet_double_blocks_1_txt_attn_proj": (6, 4)},
          alpha=torch.tensor(3.0, dtype=torch.float16))  # fmt: skip
in_a_file("LTX: dots and alpha", {"diffusion_model.transformer_blocks.0.ff.net.0.proj": (6, 4)})
in_a_file("ComfyUI: lora_A with alpha", {"diffusion_model.blocks.3.ffn.2": (6, 4)}, a="lora_A.weight",
          b="lora_B.weight")  # fmt: skip
in_a_file("kohya: SDXL, a convolution of its first release", {"lora_unet_input_blocks_3_0_op": (6, 36)},
          change=lambda state, wanted: state.update(
              {"lora_unet_input_blocks_3_0_op.lora_down.weight": state["lora_unet_input_blocks_3_0_op.lora_down.weight"]
               .reshape(2, 4, 3, 3),
               "lora_unet_input_blocks_3_0_op.lora_up.weight": state["lora_unet_input_blocks_3_0_op.lora_up.weight"]
               [..., None, None]}))  # fmt: skip
in_a_file("LyCORIS: of a language model", {"lycoris_model_layers_0_self_attn_q_proj": (6, 4)})


def differences(state, wanted):
    """Beside the factors of a layer those of a whole weight, of its bias, and of a norm as LyCORIS calls them."""
    g = torch.Generator().manual_seed(3)
    added = {"blocks.0.ffn.2.diff": (6, 8), "blocks.0.ffn.2.diff_b": (6,), "blocks.0.norm3.w_norm": (4,)}
    for key, shape in added.items():
        state[f"diffusion_model.{key}"] = torch.randn(*shape, generator=g)
        layer, _, part = f"diffusion_model.{key}".rpartition(".")
        wanted[f"{layer}.{'bias' if part == 'diff_b' else 'weight'}"] = state[f"diffusion_model.{key}"]


in_a_file("ComfyUI: .diff, .diff_b, w_norm", {"diffusion_model.blocks.0.cross_attn.k": (6, 4)}, change=differences)
in_a_file("ComfyUI: factors and a whole difference of one layer", {"diffusion_model.blocks.0.cross_attn.k": (6, 4)},
          change=lambda state, _: state.update({"diffusion_model.blocks.0.cross_attn.k.diff": torch.ones(6, 4)})
          or "diffusion_model.blocks.0.cross_attn.k has factors and a whole difference (.diff) at once")  # fmt: skip
in_a_file("LTX: lora_A with a prefix", {"diffusion_model.transformer_blocks.0.attn1.to_q": (6, 4)}, alpha=None,
          a="lora_A.weight", b="lora_B.weight")  # fmt: skip
in_a_file("diffusers: old names", {"unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2": (6, 4)}, alpha=None,
          a="lora.down.weight", b="lora.up.weight")  # fmt: skip
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@case("diffusers: alpha in the header")
def header(folder):
    state, wanted = tensors({LAYER: (6, 4)}, alpha=None, a="lora_A.weight", b="lora_B.weight")
    about = {"unet.r": 2, "unet.lora_alpha": 8, "unet.target_modules": ["to_q"], "unet.use_rslora": False}
    about |= {"unet.rank_pattern": {}, "unet.alpha_pattern": {"attn1.to_q": 6}}
    save_file(state, folder / "w.safetensors", metadata={"lora_adapter_metadata": json.dumps(about), "format": "pt"})
    return folder / "w.safetensors", {LAYER: 3 * wanted[LAYER]}


@case("diffusers: a header that is no JSON")
def torn(folder):
    state, _ = tensors({LAYER: (6, 4)}, alpha=None, a="lora_A.weight", b="lora_B.weight")
    save_file(state, folder / "w.safetensors", metadata={"lora_adapter_metadata": "{"})
    return folder / "w.safetensors", "lora_adapter_metadata in the header"


@case("LoCon: a convolution with a middle factor")
def locon(folder):
    g = torch.Generator().manual_seed(1)
    down, mid, up = (torch.randn(*s, generator=g) for s in ((2, 3, 1, 1), (2, 2, 3, 3), (4, 2, 1, 1)))
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    save_file({f"{name}.{key}": value for key, value in parts.items()}, folder / "x.safetensors")
    return folder / "x.safetensors", {name: torch.einsum("or,rshw,si->oihw", up[:, :, 0, 0], mid, down[:, :, 0, 0]) / 2}


@case("LyCORIS: LoHa")
def loha(folder):
    g = torch.Generator().manual_seed(1)
    a1, a2, b1, b2 = (torch.randn(*s, generator=g) for s in ((6, 2), (6, 2), (2, 4), (2, 4)))
    name = f"lora_unet_{ATTENTION}"
    parts = {"hada_w1_a": a1, "hada_w2_a": a2, "hada_w1_b": b1, "hada_w2_b": b2, "alpha": torch.tensor(3.0)}
    save_file({f"{name}.{key}": value for key, value in parts.items()}, folder / "x.safetensors")
    return folder / "x.safetensors", {name: (a1 @ b1) * (a2 @ b2) * 1.5}


@case("LyCORIS: LoKr of two whole matrices")
def lokr(folder):
    g = torch.Generator().manual_seed(1)
    w1, w2, name = torch.randn(2, 3, generator=g), torch.randn(4, 2, generator=g), f"lora_unet_{ATTENTION}"
    save_file(
        {f"{name}.lokr_w1": w1, f"{name}.lokr_w2": w2, f"{name}.alpha": torch.tensor(9.0)}, folder / "x.safetensors"
    )
    return folder / "x.safetensors", {name: torch.kron(w1, w2)}


in_a_file("kohya: a tensor of whole numbers", {f"lora_unet_{ATTENTION}": (6, 4)},
          change=lambda state, _: state.update({k: v.to(torch.int8) for k, v in state.items() if "up" in k})
          or f"lora_unet_{ATTENTION}.lora_up.weight has type torch.int8: a quantised adapter")  # fmt: skip
in_a_file("kohya: an infinite alpha", {f"lora_unet_{ATTENTION}": (6, 4)}, alpha=float("inf"),
          change=lambda state, _: f"lora_unet_{ATTENTION}.alpha holds 1 values that are NaN or infinite")  # fmt: skip
in_a_file("LyCORIS: DoRA along columns", {f"lora_unet_{ATTENTION}": (6, 4)},
          change=lambda state, _: state.update({f"lora_unet_{ATTENTION}.dora_scale": torch.ones(1, 4)})
          or f"lora_unet_{ATTENTION}: DoRA magnitudes of 4 columns")  # fmt: skip


def by_mlx(name, change=None, layers=("first",), **config):
    """``adapters.safetensors`` as mlx-lm writes it; the truth is what its forward pass adds: scale (x A) B."""

    def write(folder):
        g = torch.Generator().manual_seed(2)
        state, wanted = {}, {}
        for layer, rank in zip(layers, (2, 3, 1)):
            rows = 11 if layer.endswith("embed_tokens") else 6
            a, b = torch.randn(rows, rank, generator=g), torch.randn(rank, 4, generator=g)
            state |= {f"{layer}.lora_a": a, f"{layer}.lora_b": b}
            added = 20.0 * (torch.eye(rows) @ a) @ b
            wanted[layer] = added if rows == 11 else added.T
        said = change(state) if change else None
        save_file({key: value.contiguous() for key, value in state.items()}, folder / "adapters.safetensors")
        about = {"model": "mlx-community/small", "fine_tune_type": "lora", "num_layers": 4, **config}
        about.setdefault("lora_parameters", {"rank": 2, "dropout": 0.0, "scale": 20.0})
        (folder / "adapter_config.json").write_text(json.dumps(about))
        return folder, said or wanted

    CASES[name] = write


MLX = "model.layers.0.self_attn.q_proj"
by_mlx("mlx-lm: a scale for layers of three ranks", layers=(MLX, "model.layers.0.mlp.up_proj", "lm_head"))
by_mlx("mlx-lm: an embedding", layers=("model.embed_tokens", MLX))
by_mlx("mlx-lm: DoRA", lambda state: state.update({f"{MLX}.m": torch.ones(4)}), layers=(MLX,), fine_tune_type="dora")
by_mlx("mlx-lm: experts in one tensor", lambda state: state.update({f"{MLX}.lora_a": torch.ones(3, 2, 6)})
       or f"{MLX}.lora_a has shape (3, 2, 6): LoRAs of experts", layers=(MLX,))  # fmt: skip
by_mlx("mlx-lm: quantised factors", lambda state: state.update({f"{MLX}.lora_a": torch.ones(6, 2, dtype=torch.int32)})
       or f"{MLX}.lora_a is quantised (mlx-lm)", layers=(MLX,))  # fmt: skip


def error_of(name: str, folder: Path) -> float | str:
    """Largest relative error of the updates that are read, or the text of the refusal."""
    from coset.core.errors import CosetError
    from coset.weights.lora import load_lora

    source, wanted = CASES[name](folder)
    try:
        read = load_lora(source)
    except CosetError as error:
        return str(error).removeprefix(f"{source}: ").removeprefix(f"{source}/")
    if isinstance(wanted, str):
        return float("nan")
    updates = {name: pair.weight_update() for name, pair in read.layers.items()} | dict(read.dense)
    if set(updates) != set(wanted):
        return float("inf")
    return max(_error(updates[layer], delta) for layer, delta in wanted.items())


def _error(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:  # a matrix whose kernel the file does not tell
        found = found.reshape(wanted.shape)
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


if __name__ == "__main__":
    for number, kind in enumerate(CASES, 1):
        with tempfile.TemporaryDirectory() as place:
            result = error_of(kind, Path(place))
        shown = f"{result:.1e}" if isinstance(result, float) else f"refused: {result}"
        sys.stdout.write(f"| {number} | {kind} | {shown} |\n")
