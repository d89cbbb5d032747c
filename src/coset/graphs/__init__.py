"""Graphs: molecules and other data, what is added to them, and networks that see more than message passing does."""

from coset.graphs.epnn import EPNN
from coset.graphs.gin import GIN
from coset.graphs.granola import GranolaNorm
from coset.graphs.norms import make_norm
from coset.graphs.product import PairEncoder, PairGraph
from coset.graphs.spectra import GraphSpectra, Spectrum
from coset.graphs.spectral_transformer import GRIT
from coset.graphs.subgraphormer import GNNSSWLPlus, PairSumBlock, SubgraphAttentionBlock, Subgraphormer
from coset.graphs.wl import wl_colours, wl_compare

__all__ = [
    "EPNN",
    "GIN",
    "GRIT",
    "GNNSSWLPlus",
    "GranolaNorm",
    "GraphSpectra",
    "PairEncoder",
    "PairGraph",
    "PairSumBlock",
    "Spectrum",
    "SubgraphAttentionBlock",
    "Subgraphormer",
    "make_norm",
    "wl_colours",
    "wl_compare",
]
