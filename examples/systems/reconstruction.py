# %% [markdown]
# # Reconstruction: what a classifier gives away of its training images
#
# The weights of a trained network satisfy equations whose unknowns are its training inputs (arXiv 2411.16458). Four
# digits, a short search; a whole audit of your own model: `coset audit`.

# %%
import torch

from coset.privacy import (
    Attack,
    InvariantClassifier,
    SoftplusFeatures,
    group_of,
    multipliers,
    reconstruct,
    score,
    train_to_stationarity,
)  # fmt: skip
from coset.privacy.data.images import digits
from coset.reports import figure, heat_map

images, group = digits(count=4, held_out=50), group_of("plain", (8, 8))
model = InvariantClassifier(SoftplusFeatures(64, 30, generator=torch.Generator().manual_seed(0)), group)
train_to_stationarity(model, images.train, images.labels)
size = multipliers("mse", model(images.train).detach(), images.labels, 1e-3).abs().mean() / 2
found = reconstruct(model, 64, Attack(candidates=8, steps=100), scale=float(size))
print(score(found.candidates[found.best], images.train, images.held_out, group, (8, 8)).summary())

# %%
image, columns = found.candidates[found.best][0].view(8, 8), [str(k) for k in range(8)]
figure(heat_map(image.tolist(), columns, columns, [columns] * 8), height=420)
