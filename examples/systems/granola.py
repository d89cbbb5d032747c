# %% [markdown]
# # GRANOLA: a normalisation that knows the graph
#
# Scale and shift come from a small network that reads noise and neighbours, so they may differ from node to node
# (arXiv 2404.13344). It goes wherever a norm goes, and starts as a layer norm.

# %%
import torch

from coset.graphs import GranolaNorm
from coset.reports import figure, heat_map

torch.manual_seed(0)
norm = GranolaNorm(16)
x, edge_index = torch.randn(4, 16), torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
with torch.no_grad():
    once, again = norm(x, edge_index), norm(x, edge_index)
print("shape:", tuple(once.shape))
print(f"a row has mean {once[0].mean():.3f} and deviation {once[0].std(unbiased=False):.3f}")
print(f"before training, other noise changes it by {(once - again).abs().max():.3f}")

# %%
rows = [f"node {k}" for k in range(4)]
columns = [str(k) for k in range(16)]
figure(heat_map(once.tolist(), rows, columns, [columns] * 4), x="channel")
