"""FS-Merge: a training step folded, against the SuperNet as it is written; time and memory of merging two BERT-base.

Run: python benchmarks/fs_merge.py step; python benchmarks/fs_merge.py memory FOLDER (makes 900 MB of random weights).
Process time, one thread; ratios are what matters. Memory: peak of the process above the peak of its imports.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

METHODS = {
    "linear": "",
    "fs_merge": "steps: 3, batch_size: 4, rank: 12, tokens: 32",
    "fs_merge low_memory": "steps: 3, batch_size: 4, rank: 12, tokens: 32, low_memory: true",
}
CHILD = """
import json, sys, time
from pathlib import Path
from coset.recipes import merge_file
import coset.weights.merging.checkpoints, torch, transformers
from transformers import BertForSequenceClassification, BertModel
base = merge_file._peak_memory()
started = time.process_time()
facts = merge_file.run(merge_file.load(Path(sys.argv[1]))) if len(sys.argv) > 1 else {}
print(json.dumps({"base": base, "peak": merge_file._peak_memory(), "cpu": time.process_time() - started}))
"""


def median(function: Callable[[], object], repeats: int = 3) -> float:
    """Median of process times, the first call left out."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return sorted(times)[len(times) // 2]


def time_step() -> None:
    """d = 256, h = 1024, two teachers, 2 layers, 32 images of 65 tokens: 2,080 tokens."""
    from transformers import ViTConfig

    from coset.weights.merging import Distilled, FoldedSuperNet
    from coset.weights.merging.transformer_encoders import TransformerEncoder, build

    config = ViTConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=8, image_size=32,
        patch_size=4, num_channels=3,
    )  # fmt: skip
    teachers = [TransformerEncoder(build(config, seed=s)).eval() for s in range(2)]
    x = torch.randn(32, 3, 32, 32)
    net = FoldedSuperNet(teachers, rank=12)
    students = {
        "folded": net,
        "folded layer by layer, twice": net.explicit("folded"),
        "SuperNet, implicit": net.explicit("implicit"),
        "SuperNet, dense": net.explicit("dense"),
        "distillation": Distilled(teachers[0], [1.0, 1.0]),
    }
    with torch.no_grad():
        want = net(x)
        for name in list(students)[:4]:
            assert torch.allclose(students[name](x), want, atol=1e-4), name
    times = {}
    for name, student in students.items():

        def step(student=student) -> None:  # type: ignore[no-untyped-def]
            student.zero_grad()
            student.project(1, student(x)).square().mean().backward()

        times[name] = median(step)
        print(f"{name}: {times[name] * 1e3:.0f} ms, {times[name] / times['folded']:.2f} of folded", flush=True)


def measure_memory(folder: Path) -> None:
    """Two random BERT-base with heads, in shards of 100 MB."""
    from transformers import BertConfig, BertForSequenceClassification

    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig()
    size = 0
    for s in range(2):
        torch.manual_seed(s)
        model = BertForSequenceClassification(config)
        size = sum(p.numel() for p in model.parameters()) * 4
        model.save_pretrained(folder / f"m{s}", max_shard_size="100MB")
        from safetensors.torch import save_file

        ids = torch.randint(0, config.vocab_size, (8, 32))
        save_file({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, folder / f"x{s}.safetensors")
    del model
    print(f"one model: {size / 1e6:.0f} MB", flush=True)
    for name, parameters in METHODS.items():
        method = name.partition(" ")[0]
        sampled = method == "fs_merge"
        lines = [f"merge_method: {method}", "models:"]
        for s in range(2):
            lines.append(f"  - {{model: m{s}{f', inputs: x{s}.safetensors' if sampled else ''}}}")
        output = f"out-{name.replace(' ', '-')}"
        lines += [f"parameters: {{{parameters}}}", f"output: {output}", "max_shard_size: 100MB"]
        (folder / "merge.yaml").write_text("\n".join(lines), encoding="utf-8")
        child = [sys.executable, "-c", CHILD, str(folder / "merge.yaml")]
        started = time.monotonic()
        done = subprocess.run(child, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        above = (found["peak"] - found["base"]) / size
        print(
            f"{name}: {found['cpu']:.0f} CPU s, {time.monotonic() - started:.0f} s, peak {found['peak'] / 1e6:.0f} MB, "
            f"{above:.2f} models above the imports",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("step", "memory"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/bert-base-pair"))
    chosen = parser.parse_args()
    if chosen.what == "step":
        time_step()
    else:
        measure_memory(chosen.folder)


if __name__ == "__main__":
    main()
