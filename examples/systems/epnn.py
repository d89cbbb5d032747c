# %% [markdown]
# # EPNN: what eigenvectors can tell apart
#
# Networks that read projections onto eigenspaces see more than message passing, and no more than a refinement that is
# exact here (arXiv 2406.04336). A ring of six against two triangles: colours alone see no difference.

# %%
import networkx

from coset.graphs import wl_compare

ring = networkx.cycle_graph(6)
triangles = networkx.disjoint_union(networkx.cycle_graph(3), networkx.cycle_graph(3))
for found in wl_compare(ring, triangles):
    print(f"{found.test:10} {'tells them apart' if found.separated else 'sees no difference'}")
