"""Adapters as mlx-lm's own trainer makes and saves them, and what its own fusing adds, beside what Coset reads.

    PYTHON benchmarks/mlx_adapters.py make FOLDER     # PYTHON of an environment with `pip install "mlx[cpu]" mlx-lm`
    python benchmarks/mlx_adapters.py check FOLDER    # with Coset

`make` puts LoRAs, LoRAs with the embedding, and DoRAs into a small Llama of mlx-lm, draws their numbers, and saves the
adapter's folder and each weight before and after fusing. `check` prints for each the largest relative error of the
update that Coset reads (with DoRA's magnitudes where there are some), over all layers.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("lora", "embedding", "dora")
LORA = {"rank": 3, "scale": 7.5, "dropout": 0.0}
LAYERS = ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"]


def make(folder: Path, kind: str) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.lora import LoRAEmbedding
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import save_config

    mx.random.seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "num_attention_heads": 4}
    model = Model(ModelArgs("llama", **sizes, num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=30))
    model.freeze()
    linear_to_lora_layers(model, 2, LORA | {"keys": LAYERS}, use_dora=kind == "dora")
    if kind == "embedding":
        model.model.embed_tokens = LoRAEmbedding.from_base(model.model.embed_tokens, r=3, scale=LORA["scale"])
    drawn = [
        (name, 1.3 * value if name.endswith(".m") else 0.3 * mx.random.normal(value.shape))
        for name, value in tree_flatten(model.trainable_parameters())
    ]
    model.load_weights(drawn, strict=False)
    (folder / kind).mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / kind / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters())))
    about = {"model": "tiny", "fine_tune_type": "dora" if kind == "dora" else "lora", "lora_parameters": LORA}
    save_config(about, str(folder / kind / "adapter_config.json"))
    weights: dict[str, Any] = {}
    for name, module in model.named_modules():
        if hasattr(module, "fuse"):
            inner = module.embedding if isinstance(module, LoRAEmbedding) else module.linear
            weights |= {f"{name} before": np.array(inner.weight), f"{name} after": np.array(module.fuse().weight)}
    np.savez(folder / f"{kind}.npz", **weights)


def check(folder: Path, kind: str) -> None:
    import torch

    from coset.weights.lora import load_lora

    read, weights, worst = load_lora(folder / kind), np.load(folder / f"{kind}.npz"), 0.0
    assert {name.rpartition(" ")[0] for name in weights.files} == set(read.layers)
    for name, pair in read.layers.items():
        before, after = (torch.tensor(weights[f"{name} {when}"]).double() for when in ("before", "after"))
        found = before + pair.weight_update().double()
        if pair.magnitude is not None:
            found *= (pair.magnitude.double() / found.norm(dim=1))[:, None]
        worst = max(worst, float((found - after).norm() / (after - before).norm()))
    print(f"{kind}: {len(read.layers)} layers, largest error {worst:.1e} {' '.join(read.obstacles)}")


if __name__ == "__main__":
    for each in KINDS:
        {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]), each)
