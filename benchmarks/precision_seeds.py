"""Is a network trained with rows of pairs in bfloat16 as good as in float32? Subgraphormer on ZINC, seed by seed.

    python benchmarks/precision_seeds.py FOLDER [--seeds 3] [--epochs 20] [--recipe subgraphormer/zinc12k]

A run a precision and seed (`coset run RECIPE seed=S trainer.precision=P`), in turns, each in a folder of its own: a run
that is there is read, one that was stopped goes on from its last epoch, so that the same command finishes the table.
`--show` prints the table from what is there. Twenty epochs of ZINC-12k take hours on one core.

A row: the best validation MAE of each seed, its mean and deviation, and CPU seconds an epoch. Validation is in float32
on both sides.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from coset.runs.recipes import load

PRECISIONS = ("32-true", "bf16")


def folder_of(options: argparse.Namespace, precision: str, seed: int) -> Path:
    return options.folder / f"{options.recipe.replace('/', '-')}-{options.epochs}-{precision}-{seed}"


def run(options: argparse.Namespace) -> None:
    for seed in range(options.seeds):
        for precision in PRECISIONS:
            length = [f"training.epochs={options.epochs}", "training.max_minutes=null"]
            recipe = load(options.recipe, [f"seed={seed}", f"trainer.precision={precision}", *length, *options.changes])
            recipe.run(folder_of(options, precision, seed), quiet=True)
            show(options)


def show(options: argparse.Namespace) -> None:
    print("| precision | best validation MAE, a seed each | mean ± sd | CPU seconds an epoch |")
    print("| --- | --- | --- | --- |")
    for precision in PRECISIONS:
        files = [folder_of(options, precision, seed) / "history.csv" for seed in range(options.seeds)]
        histories = [pd.read_csv(file) for file in files if file.exists()]
        done = [history for history in histories if len(history) == options.epochs]
        if done:
            best = [float(history["val_mae"].min()) for history in done]
            spread = f" ± {stdev(best):.4f}" if len(best) > 1 else ""
            seconds = mean(float(history["cpu_seconds"].iloc[-1]) / len(history) for history in done)
            each = ", ".join(f"{value:.4f}" for value in best)
            print(f"| {precision} | {each} | {mean(best):.4f}{spread} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--recipe", default="subgraphormer/zinc12k")
    parser.add_argument("--show", action="store_true", help="print what is there, and run nothing")
    parser.add_argument("changes", nargs="*", help="further changes of the recipe, as model.width=48")
    options = parser.parse_args()
    show(options) if options.show else run(options)


if __name__ == "__main__":
    main()
