"""Which parts of a group's action training with decay deletes from an averaged network: docs/deleted-parts.md.

    python benchmarks/deleted_parts.py run                 # what is not in the results yet; can be stopped at any time
    python benchmarks/deleted_parts.py tables
    python benchmarks/deleted_parts.py picture             # docs/pictures/deleted-parts.svg

Networks of one softplus layer with fixed biases (10 digits of 8 x 8, 200 neurons, decay 10^-3, unless a row says
otherwise), trained by L-BFGS; ReLUs, which end at kinks, by descent. A row of JSON each network, in
benchmarks/results/deleted_parts.jsonl.
"""

import json
import math
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
from coset.privacy.descent import train_by_descent
from coset.privacy.models.modules import OnFlatInputs

RESULTS = Path(__file__).parent / "results" / "deleted_parts.jsonl"
USUAL = {
    "group": "d4",
    "count": 10,
    "hidden": 200,
    "decay": 1e-3,
    "beta": 5.0,
    "start": 1.0,
    "gate": "softplus",
    "seed": 0,
}
VARIED = {
    "group": ["c4", "d4", "flips", "shifts", "sets"],
    "gate": ["relu"],
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


def with_relus(base):
    """The same weights, biases and output weights behind ReLUs; the first layer's weights are trained."""
    first, last = (
        torch.nn.Linear(*base.weight.T.shape).double(),
        torch.nn.Linear(len(base.bias), 1, bias=False).double(),
    )
    with torch.no_grad():
        first.weight.copy_(base.weight)
        first.bias.copy_(base.bias)
        last.weight.copy_(base.value[None])
    first.bias.requires_grad_(False)
    last.weight.requires_grad_(False)
    return OnFlatInputs(torch.nn.Sequential(first, torch.nn.ReLU(), last), (inputs,))


def train(group, count, hidden, decay, beta, start, gate, seed):
    images = point_clouds(count, 2 * count, seed) if group == "sets" else digits(count, 2 * count, seed)
    table = group_of(group, images.shape)
    generator = torch.Generator().manual_seed(seed)
    base = SoftplusFeatures(images.train.size(1), hidden, beta=beta, generator=generator)
    with torch.no_grad():
        base.weight.mul_(start)
    if gate == "relu":
        model = InvariantClassifier(with_relus(base), table)
        options = {"loss": "mse", "weight_decay": decay, "steps": 10_000, "learning_rate": 1.0}
        train_by_descent(model, images.train, images.labels, **options)
        return images, model, None
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
    bend = setting["beta"] / 4 if setting["gate"] == "softplus" else float("inf")
    bounds = asymmetry_bounds(layer, x, c, bend=bend)
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
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [{"gate": "softplus"} | json.loads(line) for line in lines]


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


def shown(row):
    """Names of deleted parts; how many, where there are many."""
    names = row["deleted"]
    return " ".join(names) or "none" if len(names) < 5 else f"{len(names)} of {len(row['weights'])}"


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
            "; ".join(shown(row) for row in same), ", ".join(f"{v:.2f}" for v in lost),
            ", ".join(f"{row['undetermined']}" for row in same) + f" of {same[0]['unknowns']}",
            ", ".join(f"{row['ceiling']:.2f}" for row in same),
            ", ".join(str(row["symmetric"]) for row in same) + f" of {key['hidden']}",
        ]  # fmt: skip
        print(f"| {changed} | {' | '.join(cells)} |")


COLOURS = {"A1": "#1b6ca8", "A2": "#c0392b", "B1": "#d68910", "B2": "#1e8449", "E": "#7d3c98"}
LEAST = -20


def picture():
    """Energies of the weights by part of D4, a dot a network, over decay, sharpness and width."""
    rows = [row for row in results() if row["group"] == "d4" and row["gate"] == "softplus"]
    panels = []
    for place, name in enumerate(("decay", "beta", "hidden")):
        own = [row for row in rows if all(row[k] == v for k, v in USUAL.items() if k not in (name, "seed"))]
        panels.append(f'<g transform="translate({60 + 230 * place},20)">{"".join(panel(name, own))}</g>')
    legend = "".join(
        f'<text x="{60 + 60 * k}" y="256" fill="{colour}">&#9679; {part}</text>'
        for k, (part, colour) in enumerate(COLOURS.items())
    )
    size = 'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 264" font-family="sans-serif" font-size="12"'
    text = f'<svg {size}><rect width="760" height="264" fill="white"/>{"".join(panels)}{legend}</svg>\n'
    (Path(__file__).parents[1] / "docs" / "pictures" / "deleted-parts.svg").write_text(text)


def panel(name, rows):
    """A part's share against one setting, both on logarithmic axes."""
    values = sorted({row[name] for row in rows})
    across = {value: 20 + 160 * k / max(1, len(values) - 1) for k, value in enumerate(values)}
    yield '<rect width="200" height="180" fill="none" stroke="#999"/>'
    yield f'<text x="100" y="214" text-anchor="middle">{name}</text>'
    for value, x in across.items():
        yield f'<text x="{x:.0f}" y="196" text-anchor="middle" font-size="10">{value:g}</text>'
    for power in range(LEAST, 1, 5):
        y = 180 * power / LEAST
        yield f'<text x="-4" y="{y + 4:.0f}" text-anchor="end" font-size="10">1e{power}</text>'
    yield f'<path d="M0 {180 * -10 / LEAST:.0f}h200" stroke="#999" stroke-dasharray="3 3"/>'
    for shift, (part, colour) in enumerate(COLOURS.items()):
        for row in rows:
            share = max(row["weights"][part], 10.0**LEAST)
            x, y = across[row[name]] + 4 * (shift - 2), 180 * math.log10(share) / LEAST
            yield f'<circle cx="{x:.0f}" cy="{y:.1f}" r="3" fill="{colour}" fill-opacity=".7"/>'


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"run": run, "tables": tables, "picture": picture}[sys.argv[1]]()
