"""Two language models of a billion random parameters, merged tensor by tensor: seconds and memory, beside mergekit.

Run: python benchmarks/merge_streamed.py FOLDER [--size 1b|100m] [--methods linear slerp ...] [--rivals] [--write F].
The pair and its base (sharded safetensors in bfloat16, about 2 GB each) are made in FOLDER where they are missing, and
stay there. Every merge runs in a process of its own, one thread; `--rivals` runs `mergekit-yaml` too, where it is
installed. A row: wall seconds, CPU seconds (user and system), the process's peak of resident memory, which counts pages
of files that are mapped and can be let go of, and of what is its own (`RssAnon`); for both the largest difference.
Rows that F has already are kept, and not measured again. DARE drops other entries in the two tools, so that of it not
the difference of entries is told but that of the two mean squares of what was added to the base.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

SIZES = {
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
           "num_key_value_heads": 4, "vocab_size": 32000},
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
             "num_key_value_heads": 4, "vocab_size": 16000},
}  # fmt: skip
"""The first has 1.1 billion parameters, in the shapes of TinyLlama."""
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"models": [{"model": n, "parameters": {"weight": w}} for n, w in (("a", 0.6), ("b", 0.4))]},
    "slerp": {"models": [{"model": "a"}, {"model": "b"}], "base_model": "a", "parameters": {"t": 0.4}},
    "ties": {"models": [{"model": n, "parameters": {"weight": 0.5, "density": 0.5}} for n in "ab"],
             "base_model": "base"},
    "task_arithmetic": {"models": [{"model": n, "parameters": {"weight": w}} for n, w in (("a", 0.6), ("b", 0.4))],
                        "base_model": "base"},
    "dare_linear": {"models": [{"model": n, "parameters": {"weight": 0.5, "density": 0.5}} for n in "ab"],
                    "base_model": "base"},
}  # fmt: skip
DRAWN = ("dare_linear",)
"""Methods that drop entries by chance."""


def make(folder: Path, size: str, names: list[str]) -> None:
    """Weights are drawn tensor by tensor, so that two models are never whole in memory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    for seed, name in enumerate(("base", "a", "b")):
        if name not in names or (folder / name / "config.json").is_file():
            continue
        config = LlamaConfig(**SIZES[size], max_position_embeddings=2048, dtype="bfloat16")
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        generator = torch.Generator().manual_seed(seed)
        state = {n: (0.02 * torch.randn(p.shape, generator=generator)).bfloat16() for n, p in model.named_parameters()}
        model.load_state_dict(state, assign=True, strict=False)
        model.save_pretrained(folder / name, max_shard_size="500MB")


def run(command: list[str]) -> dict[str, Any]:
    """One process, watched; CPU seconds are its own and its children's."""
    before, began = os.times(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = {"VmHWM": 0, "RssAnon": 0}

    def watch() -> None:
        while process.poll() is None:
            try:
                facts = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            for key in peak:
                found = re.search(rf"{key}:\s+(\d+)", facts)
                peak[key] = max(peak[key], int(found[1]) if found else 0)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = process.communicate()[1]
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {said[-2000:]}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall_s": round(time.monotonic() - began, 1), "cpu_s": round(used, 1),
            "resident_mb": round(peak["VmHWM"] / 1000), "own_mb": round(peak["RssAnon"] / 1000)}  # fmt: skip


def difference(first: Path, second: Path) -> float:
    from coset.weights.merging.checkpoints import Checkpoint

    one, two = Checkpoint(first), Checkpoint(second)
    assert set(one.files) == set(two.files), set(one.files) ^ set(two.files)
    return max(float((one[n].float() - two[n].float()).abs().max()) for n in one.files)


def added(merged: Path, base: Path) -> float:
    """Mean square of what a merge added to its base."""
    from coset.weights.merging.checkpoints import Checkpoint

    one, two = Checkpoint(merged), Checkpoint(base)
    squares = [float((one[n].float() - two[n].float()).square().sum(dtype=float)) for n in one.files]
    return sum(squares) / sum(one[n].numel() for n in one.files)


def measured(folder: Path, size: str, method: str, rivals: bool) -> dict[str, Any]:
    """One row; what the merges wrote is gone afterwards."""
    file = folder / f"{method}.yaml"
    file.write_text(yaml.safe_dump({"merge_method": method, "dtype": "bfloat16", **METHODS[method]}))
    ours, theirs = folder / "ours", folder / "theirs"
    for place in (ours, theirs):
        shutil.rmtree(place, ignore_errors=True)
    command = ["merge", str(file), "--output", str(ours.absolute()), "--quiet"]
    row: dict[str, Any] = {"size": size, "method": method}
    row["coset"] = run([sys.executable, "-c", "from coset.cli import main; main()", *command])
    if rivals:
        there = re.sub(r"(model: )(a|b|base)\b", lambda m: f"{m[1]}{(folder / m[2]).absolute()}", file.read_text())
        named = folder / f"{method}-mergekit.yaml"
        named.write_text(there)
        code = "from mergekit.scripts.run_yaml import main; main()"
        row["mergekit"] = run([sys.executable, "-c", code, str(named), str(theirs), "--lazy-unpickle"])
        if method in DRAWN:
            row["mean_squares"] = [added(place, folder / "base") for place in (ours, theirs)]
        else:
            row["difference"] = difference(ours, theirs)
    for place in (ours, theirs):
        shutil.rmtree(place, ignore_errors=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--rivals", action="store_true", help="run mergekit as well")
    parser.add_argument("--write", type=Path, help="the rows as JSON, added to those that are there")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    needed = ["a", "b"] + (["base"] if any(METHODS[m].get("base_model") == "base" for m in options.methods) else [])
    make(options.folder, options.size, needed)
    there = options.write is not None and options.write.is_file()
    rows = json.loads(options.write.read_text()) if there else []
    for method in options.methods:
        kept = [r for r in rows if (r["size"], r["method"]) == (options.size, method) and "max_shard_size" not in r]
        if any("mergekit" in r or not options.rivals for r in kept):
            continue
        row = measured(options.folder, options.size, method, options.rivals)
        rows = [r for r in rows if r not in kept] + [row]
        print(json.dumps(row), flush=True)
        if options.write is not None:
            options.write.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
