"""Which parts of a group's action training with decay deletes from an averaged network: docs/deleted-parts.md.

    python benchmarks/deleted_parts.py run                 # what is not in the results yet; can be stopped at any time
    python benchmarks/deleted_parts.py tables

Networks of one softplus layer with fixed biases (10 digits of 8 x 8, 200 neurons, decay 10^-3, unless a row says
otherwise), trained by L-BFGS. A row of JSON each network, in benchmarks/results/deleted_parts.jsonl.
"""

import json
import sys
import time
from pathlib import Path

import torch

from coset.privacy import (
    InvariantClassifier,
    SoftplusFeatures,
    group_of,
    hidden_layer_of,
    information_of,
    isotypic_parts,
    multipliers,
    stationarity_residual,
    train_to_stationarity,
)
from coset.privacy.data.images import digits, point_clouds
from coset.privacy.deletion import asymmetry_bounds, instabilities, stabilisers, symmetric_neurons

RESULTS = Path(__file__).parent / "results" / "deleted_parts.jsonl"
USUAL = {"group": "d4", "count": 10, "hidden": 200, "decay": 1e-3, "beta": 5.0, "start": 1.0, "seed": 0}
VARIED = {
    "group": ["c4", "d4", "flips", "sets"],
    "decay": [1e-4, 3e-4, 3e-3, 1e-2],
    "beta": [1.0, 20.0],
    "hidden": [50, 800],
    "count": [4, 30],
    "start": [0.01, 10.0],
}
SEEDS = range(3)


def settings():
    """The usual network of every group, then D4 with one thing changed at a time."""
    for seed in SEEDS:
        for name, values in VARIED.items():
            for value in values:
                yield USUAL | {name: value, "seed": seed}


def train(group, count, hidden, decay, beta, start, seed):
    images = point_clouds(count, 2 * count, seed) if group == "sets" else digits(count, 2 * count, seed)
    table = group_of(group, images.shape)
    generator = torch.Generator().manual_seed(seed)
    base = SoftplusFeatures(images.train.size(1), hidden, beta=beta, generator=generator)
    with torch.no_grad():
        base.weight.mul_(start)
    model = InvariantClassifier(base, table)
    reached = train_to_stationarity(model, images.train, images.labels, weight_decay=decay, iterations=3000)
    return images, model, reached


def measure(setting):
    before = time.process_time()
    images, model, reached = train(**setting)
    x, decay = images.train, setting["decay"]
    with torch.no_grad():
        c = multipliers("mse", model(x), images.labels, decay)
    residual = stationarity_residual(model, x, images.labels, weight_decay=decay)
    known = information_of(model, x, c, model.group, residual=residual)
    layer, parts = hidden_layer_of(model, x.size(1)), isotypic_parts(model.group)
    fixed = stabilisers(layer)
    alone = fixed.all(1)
    bounds = asymmetry_bounds(layer, x, c, bend=setting["beta"] / 4)
    foreseen = instabilities(symmetric_neurons(layer, x, c), x, c, parts).amax(1) < 1
    sizes, counts = fixed.sum(1).unique(return_counts=True)
    return {
        **setting, "gradient": reached, "residual": residual, "weights": known.weights, "data": known.data,
        "undetermined": known.undetermined, "unknowns": known.unknowns, "ceiling": float(known.ceiling.mean()),
        "deleted": [name for name, share in known.weights.items() if share < 1e-10],
        "stabilisers": dict(zip(map(str, sizes.tolist()), counts.tolist(), strict=True)),
        "symmetric": int(alone.sum()), "bounded": int((bounds < 1).sum()),
        "bounded_not_symmetric": int(((bounds < 1) & ~alone).sum()),
        "foreseen_symmetric": int(foreseen.sum()), "foreseen_right": int((foreseen == alone).sum()),
        "seconds": round(time.process_time() - before, 2),
    }  # fmt: skip


def results():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def run():
    """What is missing, a row appended after each network."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for setting in settings():
        if any(all(row[k] == v for k, v in setting.items()) for row in results()):
            continue
        row = measure(setting)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({k: row[k] for k in (*setting, "deleted", "undetermined", "ceiling", "seconds")}), flush=True)


def tables():
    """A row a setting: seeds side by side."""
    rows = results()
    print("| changed | deleted parts (seeds) | energy of the data there | undetermined | ceiling | symmetric neurons |")
    print("| --- | --- | --- | --- | --- | --- |")
    done = []
    for setting in settings():
        key = {k: v for k, v in setting.items() if k != "seed"}
        same = [row for row in rows if all(row[k] == v for k, v in key.items())]
        if key in done or not same:
            continue
        done.append(key)
        changed = ", ".join(f"{k} {v}" for k, v in key.items() if v != USUAL[k]) or "nothing (D4)"
        lost = [sum(row["data"][name] for name in row["deleted"]) for row in same]
        cells = [
            "; ".join(" ".join(row["deleted"]) or "none" for row in same), ", ".join(f"{v:.2f}" for v in lost),
            ", ".join(f"{row['undetermined']}" for row in same) + f" of {same[0]['unknowns']}",
            ", ".join(f"{row['ceiling']:.2f}" for row in same),
            ", ".join(str(row["symmetric"]) for row in same) + f" of {key['hidden']}",
        ]  # fmt: skip
        print(f"| {changed} | {' | '.join(cells)} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"run": run, "tables": tables}[sys.argv[1]]()
