"""FS-Merge: a training step folded, against the SuperNet as it is written; memory of a BERT-base pair; other widths.

Run: python benchmarks/fs_merge.py step; python benchmarks/fs_merge.py memory FOLDER (makes 900 MB of random weights);
python benchmarks/fs_merge.py widths FILE.jsonl; python benchmarks/fs_merge.py gates RUN ... (folders of
``coset run fs-merge/...``, or a file of widths); python benchmarks/fs_merge.py protocol RUN ... (a table with 95 %
intervals over seeds, and whether FS-Merge is above the best distillation; of a run that goes on, of what is there).
Process time, one thread; ratios are what matters. Memory: peak of the
process above the peak of its imports. Widths are kept row by row, and gone on with if the file is there.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from timing import median_ms

METHODS = {
    "linear": "",
    "fs_merge": "steps: 3, batch_size: 4, rank: 12, tokens: 32",
    "fs_merge in memory": "steps: 3, batch_size: 4, rank: 12, tokens: 32, low_memory: false",
}
CHILD = """
import json, sys, time
from pathlib import Path
from coset.weights.merging import merge_file, merge_options
import coset.weights.merging.checkpoints, torch, transformers
from transformers import BertForSequenceClassification, BertModel
base = merge_file._peak_memory()
started = time.process_time()
facts = merge_file.run(merge_options.load(Path(sys.argv[1]))) if len(sys.argv) > 1 else {}
print(json.dumps({"base": base, "peak": merge_file._peak_memory(), "cpu": time.process_time() - started}))
"""


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

        times[name] = median_ms(step, 3)
        print(f"{name}: {times[name]:.0f} ms, {times[name] / times['folded']:.2f} of folded", flush=True)


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


def measure_widths(file: Path, seeds: int = 3) -> None:
    """Digit MLPs of width 64 merged into other widths, and a pair of widths 64 and 96 into 64; 100 samples a task."""
    from coset.runs.recipes import load
    from coset.weights.merging import FoldedSuperNet, Merged, evaluate, fold_heads

    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {(r["seed"], r["teachers"], r["width"], r["method"]) for r in rows}
    cases = [(s, [64, 64], w, "fs_first") for s in range(seeds) for w in (32, 64, 96, 128)]
    cases += [(s, [64, 64], 128, "side by side") for s in range(seeds)] + [
        (s, [64, 96], 64, "fs_first") for s in range(seeds)
    ]
    for seed, teachers, width, method in cases:
        if (seed, str(teachers), width, method) in done:
            continue
        other = [f"network.other_sizes=[[{teachers[1]},{teachers[1]},{teachers[1]}]]"] * (teachers[1] != 64)
        recipe = load("fs-merge/digits", [f"width={width}", "learning_rates=[0.003,0.01]", "rank=8", *other])
        tasks, made = recipe.trained(seed)
        tests = {t.name: (t.test, t.test_labels) for t in tasks}
        if method == "fs_first":
            row = recipe.measured(method, tasks, made, 100, seed)
        else:
            net = FoldedSuperNet([t.encoder for t in made], kind="full", width=width)
            blocks = {s: torch.eye(width).split(64) for s in net.wiring.widths}
            net.start_from(blocks, blocks)
            encoder, projections = net.finished()
            samples = [t.train[:100] for t in tasks]
            loss = sum(
                float((net.project(i, net(x)) - t.encoder(x)).square().mean())
                for i, (t, x) in enumerate(zip(made, samples, strict=True))
            )
            row = evaluate(Merged(encoder, fold_heads(made, projections)), tests).to_dict() | {"held_out_loss": loss}
        kept = {"seed": seed, "teachers": str(teachers), "width": width, "method": method}
        kept |= {k: row[k] for k in ("per_task", "joint", "held_out_loss")}
        kept["originals"] = recipe.measured("originals", tasks, made, 100, seed)["per_task"]
        with file.open("a") as out:
            out.write(json.dumps(kept) + "\n")
        print(kept, flush=True)


def print_gates(paths: list[Path]) -> None:
    """What was asked of each experiment, beside what came out."""
    for path in paths:
        if path.is_file():
            _gates_of_widths([json.loads(line) for line in path.read_text().splitlines()])
            continue
        metrics = json.loads((path / "metrics.json").read_text())
        table, found = metrics["methods"], metrics["recipe"]
        cells = {
            (m, int(n), k): 100 * c[k] for m, by in table.items() for n, c in by.items() for k in ("per_task", "joint")
        }

        def at(method: str, n: int = 20, key: str = "per_task", cells: dict = cells) -> float:
            return cells[method, n, key]

        print(f"{found}, {metrics['seeds']} seeds")
        if (asked := GATES.get(found.removeprefix("fs-merge/"))) is None:
            print("  nothing was asked of this one")
            continue
        for text, left, right in asked(at):
            print(f"  {'holds' if left >= right else 'DOES NOT HOLD'}: {text}: {left:.1f} >= {right:.1f}")


def print_protocol(folders: list[Path]) -> None:
    """Mean and 95 % interval over seeds of each method, and FS-Merge's best beside distillation's best."""
    for folder in folders:
        rows = _rows_of(folder)
        seeds = sorted({r["seed"] for r in rows})
        for samples in sorted({r["samples"] for r in rows}):
            own = [r for r in rows if r["samples"] == samples]
            methods = list(dict.fromkeys(r["method"] for r in own))
            print(f"{folder.name}, {samples} originals a task, seeds {seeds}")
            print("| method | per task | joint | each task | trained numbers | CPU s |\n" + "| --- " * 6 + "|")
            for method in methods:
                print(_line([r for r in own if r["method"] == method]))
            _judge(own, methods)


def _rows_of(folder: Path) -> list[dict]:
    if (folder / "metrics.json").is_file():
        return json.loads((folder / "metrics.json").read_text())["rows"]
    parts = [torch.load(file, weights_only=True) for file in sorted((folder / "parts").glob("*seed*.pt"))]
    return sorted(parts, key=lambda r: r["seed"])


def _line(rows: list[dict]) -> str:
    cells = [_interval([100 * r[key] for r in rows]) for key in ("per_task", "joint")]
    tasks = ", ".join(f"{t} {statistics.mean(100 * r['tasks'][t] for r in rows):.1f}" for t in rows[0]["tasks"])
    cells += [tasks, f"{rows[0]['trained']:,}", f"{statistics.mean(r['cpu_seconds'] for r in rows):.1f}"]
    return f"| {rows[0]['method']} ({len(rows)}) | {' | '.join(cells)} |"


def _interval(values: list[float]) -> str:
    """Mean, and half the 95 % interval of Student's t."""
    if len(values) < 2:
        return f"{values[0]:.1f}"
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def _judge(rows: list[dict], methods: list[str]) -> None:
    """The best of each kind by accuracy per task, and differences seed by seed."""
    best = {}
    for kind in ("distill", "fs_"):
        found = {
            m: statistics.mean(r["per_task"] for r in rows if r["method"] == m) for m in methods if m.startswith(kind)
        }
        if not found:
            return
        best[kind] = max(found, key=found.__getitem__)
    pairs = {kind: {r["seed"]: r for r in rows if r["method"] == name} for kind, name in best.items()}
    shared = sorted(set(pairs["distill"]) & set(pairs["fs_"]))
    for key in ("per_task", "joint") if shared else ():
        moved = [100 * (pairs["fs_"][s][key] - pairs["distill"][s][key]) for s in shared]
        print(f"{best['fs_']} less {best['distill']}, {key}, seed by seed: {_interval(moved)} ({len(moved)} seeds)")


GATES = {
    "digits": lambda at: [
        ("average at most 70", 70, at("average")),
        ("FS first at least 82", at("fs_first"), 82),
        ("FS first above the average by 15", at("fs_first"), at("average") + 15),
        ("FS first not below distillation from teacher 1 by more than 4", at("fs_first"), at("distill_first") - 4),
        ("FS align above FS first", at("fs_align"), at("fs_first")),
        ("FS align above matching by 4", at("fs_align"), at("activation_matching") + 4),
        ("FS first at least 95 at 100 samples", at("fs_first", 100), 95),
    ],
    "digits-vit": lambda at: [
        ("average at most 45", 45, at("average")),
        ("FS first above the average by 35", at("fs_first"), at("average") + 35),
        ("FS first above distillation from random by 5", at("fs_first"), at("distill_random") + 5),
        ("FS first within 6 of distillation from teacher 1", 6, abs(at("fs_first") - at("distill_first"))),
        ("the other teachers' features help by 1", at("fs_first_cross"), at("fs_first") + 1),
    ],
    "four-tasks": lambda at: [
        ("in sequence not below together by more than 10", at("fs_sequential", 40), at("fs_first", 40) - 10)
    ],
    "markers": lambda at: [
        ("teachers at least 95", at("originals", 200), 95),
        ("average at most 65 (chance 50)", 65, at("average", 200)),
        ("FS first at least 80% of the teachers", at("fs_first", 200), 0.8 * at("originals", 200)),
        ("distillation at least 80% of the teachers", at("distill_first", 200), 0.8 * at("originals", 200)),
    ],
    "same-start": lambda at: [("average not below FS first by more than 5", at("average"), at("fs_first") - 5)],
}


def _gates_of_widths(rows: list[dict]) -> None:
    def mean(key: str, **wanted: object) -> float:
        values = [r[key] for r in rows if all(r[k] == v for k, v in wanted.items())]
        return sum(values) / len(values)

    losses = [mean("held_out_loss", teachers="[64, 64]", width=w, method="fs_first") for w in (32, 64, 96, 128)]
    falls = all(a >= b for a, b in itertools.pairwise(losses))
    shown = ", ".join(f"{x:.4f}" for x in losses)
    print(f"widths: loss at 32, 64, 96, 128: {shown}: {'holds' if falls else 'DOES NOT HOLD'}")
    side = {k: mean(k, method="side by side") for k in ("held_out_loss", "per_task", "originals")}
    print(
        f"  128, M = U = I: loss {side['held_out_loss']:.1e}, {side['per_task']:.4f}, originals {side['originals']:.4f}"
    )
    print(f"  64 and 96 into 64: {100 * mean('per_task', teachers='[64, 96]'):.1f} >= 80")


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "memory", "widths", "gates", "protocol"))
    parser.add_argument("paths", type=Path, nargs="*", help="a folder, a file of rows, or runs")
    chosen = parser.parse_args()
    if chosen.what == "step":
        time_step()
    elif chosen.what == "memory":
        measure_memory(chosen.paths[0] if chosen.paths else Path("runs/bert-base-pair"))
    elif chosen.what == "widths":
        measure_widths(chosen.paths[0] if chosen.paths else Path("runs/fs-merge-widths.jsonl"))
    elif chosen.what == "protocol":
        print_protocol(chosen.paths)
    else:
        print_gates(chosen.paths)


if __name__ == "__main__":
    main()
