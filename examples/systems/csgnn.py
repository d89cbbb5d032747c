# %% [markdown]
# # CS-GNN: as many subgraphs as you can afford
#
# A bag of subgraphs for every graph is dear. CS-GNN takes the product of the graph with a coarsened copy of itself,
# so the bag has any size from one to all nodes (arXiv 2406.09291).

# %%
import torch
from torch_geometric.data import Batch, Data

from coset.graphs import CSGNN
from coset.graphs.transforms import Coarsen, ShortestPathDistances

edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
ring = Data(edge_index=torch.cat([edges, edges.flip(0)], 1), num_nodes=6)

# %%
for size in (1, 2, 3, 6):
    graph = Coarsen("spectral", size=size)(ShortestPathDistances()(ring))
    print(f"{size} sets of nodes -> output {CSGNN(1).eval()(Batch.from_data_list([graph])).item():+.3f}")
