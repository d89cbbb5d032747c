"""Graphs: molecules and other data, what is added to them, and networks that see more than message passing does."""

from coset.graphs.gin import GIN
from coset.graphs.granola import GranolaNorm
from coset.graphs.norms import make_norm
from coset.graphs.product import PairEncoder, PairGraph
from coset.graphs.subgraphormer import GNNSSWLPlus, PairSumBlock, SubgraphAttentionBlock, Subgraphormer

__all__ = [
    "GIN",
    "GNNSSWLPlus",
    "GranolaNorm",
    "PairEncoder",
    "PairGraph",
    "PairSumBlock",
    "SubgraphAttentionBlock",
    "Subgraphormer",
    "make_norm",
]
