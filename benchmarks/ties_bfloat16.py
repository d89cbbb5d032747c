"""TIES in bfloat16 beside mergekit, entry by entry: what differs, and why.

Run: python benchmarks/ties_bfloat16.py [--size 1500], where mergekit is installed. Coset takes differences from the
base in float32 and rounds the result; mergekit takes them, and sums them, in the models' bfloat16. Two random models
and their base, once independent (a difference as large as the weights) and once near the base (a tenth of it). Of the
entries that are more than two bfloat16 steps apart: in how many another set of entries was kept (mergekit's
differences have many equal values at the threshold), in how many another sign was elected (sums near 0), and how many
are left that rounding of differences and sums does not explain.
"""

import argparse

import torch
from mergekit.merge_methods.generalized_task_arithmetic import get_mask
from mergekit.sparsify import magnitude
from torch import Tensor

from coset.weights.merging.methods import MERGE_METHODS
from coset.weights.merging.mixing import Values, largest

DENSITY, STEP = 0.5, 2**-8


def theirs(models: list[Tensor], base: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """mergekit's result, which entries it kept of each model, and the sums whose signs it elects."""
    deltas = torch.stack([magnitude(x - base, DENSITY) for x in models])
    kept = [delta != 0 for delta in deltas]
    deltas = deltas * 0.5
    agreeing = get_mask(deltas, method="sum", mask_dtype=base.dtype)
    below = (torch.full_like(deltas, 0.5) * agreeing).sum(0)
    below[below.abs() < 1e-8] = 1
    return base + (deltas * agreeing).sum(0) / below, kept, deltas.sum(0)


def compare(size: int, moved: float | None) -> str:
    base = (0.02 * torch.randn(size, size)).bfloat16()
    far = base.float() if moved is not None else torch.zeros_like(base.float())
    models = [(far + (moved or 0.02) * torch.randn(size, size)).bfloat16() for _ in range(2)]
    values = Values.of(2, weight=(0.5, 0.5), density=(DENSITY, DENSITY))
    wide = [x.float() for x in models]
    ours = MERGE_METHODS["ties"].function(wide, base.float(), values, torch.Generator())
    ours = ours.bfloat16().float()
    found, kept, sums = theirs(models, base)
    off = (ours - found.float()).abs()
    apart = off > 2 * STEP * torch.maximum(ours.abs(), found.float().abs()).clamp(min=1e-30)

    differences = [x - base.float() for x in wide]
    pruned = [largest(d, i, values, torch.Generator()) for i, d in enumerate(differences)]
    others = torch.stack([(p != 0) != k for p, k in zip(pruned, kept, strict=True)]).any(0)
    elected = (sum(pruned) >= 0) != (sums >= 0)
    size_of = torch.maximum(*[d.abs() for d in differences]) + ours.abs()
    left = apart & ~others & ~elected & (off > 2.5 * STEP * size_of)
    counts = [int(x.sum()) for x in (apart, apart & others, apart & elected & ~others, left)]
    same = float(off[~others & ~elected].max())
    return (
        f"{'independent' if moved is None else 'near the base'}: {off.numel():,} entries, {counts[0]:,} more than two "
        f"steps apart; another set kept {counts[1]:,}, another sign {counts[2]:,}, not explained {counts[3]:,}; "
        f"largest {float(off.max()):.3f}, where set and sign are the same {same:.5f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1500, help="rows and columns")
    options = parser.parse_args()
    torch.manual_seed(0)
    for moved in (None, 0.002):
        print(compare(options.size, moved))


if __name__ == "__main__":
    main()
