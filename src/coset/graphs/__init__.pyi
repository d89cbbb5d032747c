from .encodings.spectra import GraphSpectra, Spectrum
from .learner import Learner
from .models.bags import BagGraph
from .models.csgnn import CSGNN, BagBlock
from .models.epnn import EPNN
from .models.gin import GIN
from .models.granola import GranolaNorm
from .models.grit import GRIT
from .models.norm_slots import NormSlot, attach_edges, graph_context, mean_over_draws
from .models.norms import make_norm
from .models.pair_layers import PairSumBlock, SubgraphAttentionBlock
from .models.partition_linear import PartitionEquivariantLinear
from .models.product import PairEncoder, PairGraph
from .models.subgraphormer import GNNSSWLPlus, Subgraphormer
from .wl import wl_colours, wl_compare

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
    "Learner",
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
