"""One adapter with weight 1, another with weight 0: PEFT's `add_weighted_adapter` beside `coset lora merge`.

Run: python benchmarks/lora_identity.py [--write FILE]. The cases of huggingface/peft issue 3761 (plain LoRA, rsLoRA,
`lora_bias`, DoRA, KaSA) and of issue 3737 (patterns of ranks, saved and loaded again) on a small OPT of random weights.
A row: the largest relative difference of logits from those of the first adapter, or what was said.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora.config import KasaConfig
from transformers import OPTConfig, OPTForCausalLM

from coset.core.errors import CosetError
from coset.weights.lora import load_lora, save_peft
from coset.weights.lora.combining import Mixing, combine

CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "rsLoRA": {"use_rslora": True}, "lora_bias": {"lora_bias": True}, "DoRA": {"use_dora": True},
    "KaSA": {"kasa_config": KasaConfig(), "r": 4}, "rank_pattern": {"rank_pattern": {"v_proj": 2}},
    "alpha_pattern": {"alpha_pattern": {"v_proj": 3}}, "rsLoRA and rank_pattern": {"use_rslora": True, "rank_pattern":
    {"v_proj": 2}}, "modules_to_save": {"modules_to_save": ["lm_head"]},
}  # fmt: skip
X = torch.arange(8).reshape(1, 8)


def base() -> OPTForCausalLM:
    torch.manual_seed(7)
    config = OPTConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, ffn_dim=32, num_attention_heads=4, word_embed_proj_dim=16,
        max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    return OPTForCausalLM(config).eval()


def trained(folder: Path, seed: int, **options: Any) -> None:
    """An adapter all of whose numbers are drawn, saved by PEFT."""
    torch.manual_seed(seed)
    settings = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options}
    model = peft.get_peft_model(base(), peft.LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "magnitude" in name:
            parameter.data *= 0.5 + torch.rand_like(parameter)
        elif parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)


def logits(folder: Path) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(base(), str(folder)).eval()
    with torch.no_grad():
        return model(X).logits


def by_peft(first: Path, second: Path, output: Path) -> Path:
    model = peft.PeftModel.from_pretrained(base(), str(first), adapter_name="a").eval()
    model.load_adapter(str(second), adapter_name="b")
    model.add_weighted_adapter(["a", "b"], [1.0, 0.0], "merged", combination_type="linear")
    model.save_pretrained(str(output), selected_adapters=["merged"])
    return output / "merged"


def by_coset(first: Path, second: Path, output: Path) -> Path:
    found = [load_lora(path) for path in (first, second)]
    return save_peft(combine(found, "linear", Mixing([1.0, 0.0])).adapter, output)


def difference(merge: Callable[[Path, Path, Path], Path], name: str) -> str:
    with tempfile.TemporaryDirectory() as place:
        first, second = Path(place) / "a", Path(place) / "b"
        trained(first, 0, **CASES[name])
        trained(second, 1, **CASES[name])
        try:
            found, wanted = logits(merge(first, second, Path(place) / "merged")), logits(first)
        except CosetError as error:
            return "refused: " + str(error).removeprefix(f"{first}: ")
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
    return f"{float((found - wanted).norm() / wanted.norm()):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="the rows as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [[name, difference(by_peft, name), difference(by_coset, name)] for name in CASES]
    print("| adapter | PEFT | Coset |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    if options.write is not None:
        options.write.write_text(json.dumps({"peft": peft.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
