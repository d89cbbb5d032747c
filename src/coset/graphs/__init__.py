"""Graphs: molecules and other data, what is added to them, and networks that see more than message passing does."""

from coset.graphs.bags import BagGraph
from coset.graphs.csgnn import CSGNN, BagBlock
from coset.graphs.gin import GIN
from coset.graphs.granola import GranolaNorm
from coset.graphs.norms import make_norm
from coset.graphs.partition_linear import PartitionEquivariantLinear
from coset.graphs.product import PairEncoder, PairGraph
from coset.graphs.subgraphormer import GNNSSWLPlus, PairSumBlock, SubgraphAttentionBlock, Subgraphormer

__all__ = [
    "CSGNN",
    "GIN",
    "BagBlock",
    "BagGraph",
    "GNNSSWLPlus",
    "GranolaNorm",
    "PairEncoder",
    "PairGraph",
    "PairSumBlock",
    "PartitionEquivariantLinear",
    "SubgraphAttentionBlock",
    "Subgraphormer",
    "make_norm",
]
