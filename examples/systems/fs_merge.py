# %% [markdown]
# # FS-Merge: two networks in one
#
# Networks of other starts and tasks become one of the same size: a SuperNet holds both, and what it learnt folds into
# an ordinary network (arXiv 2410.01483). For folders of `transformers` checkpoints: `coset merge FILE.yaml`.

# %%
import torch
from torch import nn

from coset.weights.merging import Fit, FoldedSuperNet, Merged, MLPEncoder, Targets, Teacher, fit, fold_heads

torch.manual_seed(0)
teachers = [Teacher(name, MLPEncoder.of([64, 64, 64]), nn.Linear(64, 5)) for name in ("a", "b")]
samples = [torch.randn(20, 64), torch.randn(20, 64)]
encoders = [teacher.encoder for teacher in teachers]
net = FoldedSuperNet(encoders, rank=4, init="first")
fit(net, Targets.of(encoders, samples), Fit(steps=100, learning_rate=1e-2))

# %%
encoder, projections = net.finished()
merged = Merged(encoder, fold_heads(teachers, projections))
for teacher, rows in zip(teachers, samples):
    wanted, found = teacher.head(teacher.encoder(rows)).argmax(1), merged.logits(rows)[teacher.name].argmax(1)
    print(f"task {teacher.name}: the merged network agrees on {float((wanted == found).float().mean()):.0%}")
