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
from coset.reports import figure, line

edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
ring = Data(edge_index=torch.cat([edges, edges.flip(0)], 1), num_nodes=6)

# %%
torch.manual_seed(0)
model, sizes, outputs = CSGNN(1).eval(), (1, 2, 3, 6), []
for size in sizes:
    graph = Coarsen("spectral", size=size)(ShortestPathDistances()(ring))
    outputs.append(model(Batch.from_data_list([graph])).item())
    print(f"{size} sets of nodes -> output {outputs[-1]:+.3f}")

# %%
figure(line(sizes, outputs, dots=True), x="sets of nodes", y="output of an untrained network")
