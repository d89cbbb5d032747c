"""Graphs: molecules and other data, what is added to them, and networks that see more than message passing does."""

from coset.graphs.bags import BagGraph
from coset.graphs.csgnn import CSGNN, BagBlock
from coset.graphs.epnn import EPNN
from coset.graphs.gin import GIN
from coset.graphs.granola import GranolaNorm
from coset.graphs.norm_slots import NormSlot, attach_edges, graph_context, mean_over_draws
from coset.graphs.norms import make_norm
from coset.graphs.partition_linear import PartitionEquivariantLinear
from coset.graphs.product import PairEncoder, PairGraph
from coset.graphs.spectra import GraphSpectra, Spectrum
from coset.graphs.spectral_transformer import GRIT
from coset.graphs.subgraphormer import GNNSSWLPlus, PairSumBlock, SubgraphAttentionBlock, Subgraphormer
from coset.graphs.wl import wl_colours, wl_compare

__all__ = [
    "CSGNN",
    "EPNN",
    "GIN",
    "GRIT",
    "BagBlock",
    "BagGraph",
    "GNNSSWLPlus",
    "GranolaNorm",
    "GraphSpectra",
    "NormSlot",
    "PairEncoder",
    "PairGraph",
    "PairSumBlock",
    "PartitionEquivariantLinear",
    "Spectrum",
    "SubgraphAttentionBlock",
    "Subgraphormer",
    "attach_edges",
    "graph_context",
    "make_norm",
    "mean_over_draws",
    "wl_colours",
    "wl_compare",
]
