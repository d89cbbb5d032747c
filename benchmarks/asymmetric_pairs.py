"""Barriers between pairs of networks, row by row of a recipe, as far as time allows.

Run: python benchmarks/asymmetric_pairs.py FOLDER [--recipe asymmetric/lmc-mnist-gates] [--pairs 5] [--variants W].
A pair of one variant is a run of the recipe with two networks of the seed of its number, in a folder of its own: what
is done is not done again, so that the same command goes on where it was stopped. `--show` prints the table from what is
there. One thread; data in COSET_DATA.

A row: mean and deviation over pairs of the barrier on test data at the midpoint, the largest height above the chord,
the accuracy at the midpoint and at the ends; CPU seconds of training.
"""

import argparse
import json
import os
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from coset.runs.recipes import load
from coset.runs.run import execute
from coset.weights.asymmetric.experiments import ConnectivityRecipe


def pair_of(recipe: str, variant: str, number: int, changes: list[str]) -> ConnectivityRecipe:
    """The recipe with two networks of one variant; masks, gates and weights follow from the pair's number."""
    found = load(recipe, [f"seed={number}", "networks=2", *changes])
    assert isinstance(found, ConnectivityRecipe)
    return found.model_copy(update={"variants": {variant: found.variants[variant]}})


def run(folder: Path, name: str, pairs: int, variants: list[str], changes: list[str]) -> None:
    """Pair by pair, all variants of each, so that a table that was cut off has whole columns."""
    for number in range(pairs):
        for variant in variants:
            file = folder / f"{name.replace('/', '-')}.jsonl"
            if any(row["pair"] == number and row["variant"] == variant for row in rows_of(file)):
                continue
            recipe = pair_of(name, variant, number, changes)
            metrics = execute(recipe, folder / f"{name.replace('/', '-')}-{variant}-{number}", quiet=True)
            for row_name, found in metrics["variants"].items():
                kept = ("barrier", "highest", "midpoint_accuracy", "end_accuracy")
                row: dict[str, Any] = {"pair": number, "variant": row_name}
                row |= {key: round(found[key][0], 5) for key in kept}
                row |= {"cpu_s": found.get("train_cpu_seconds", 0)}
                with file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def show(file: Path) -> None:
    rows = rows_of(file)
    print("| | pairs | test barrier | highest | midpoint accuracy | end accuracy | CPU s a pair |")
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == name]
        shown = [
            f"{mean(v):.3f}" + (f" ± {stdev(v):.3f}" if len(v) > 1 else "")
            for v in ([row[key] for row in own] for key in ("barrier", "highest", "midpoint_accuracy", "end_accuracy"))
        ]
        print(f"| {name} | {len(own)} | {' | '.join(shown)} | {mean(row['cpu_s'] for row in own):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where runs and rows are kept")
    parser.add_argument("--recipe", default="asymmetric/lmc-mnist-gates")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--variants", nargs="+", help="all of the recipe by default")
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipe, key=value")
    parser.add_argument("--show", action="store_true", help="print the table, train nothing")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.show:
        show(options.folder / f"{options.recipe.replace('/', '-')}.jsonl")
        return
    recipe = load(options.recipe, options.set)
    assert isinstance(recipe, ConnectivityRecipe)
    run(options.folder, options.recipe, options.pairs, options.variants or list(recipe.variants), options.set)


if __name__ == "__main__":
    main()
