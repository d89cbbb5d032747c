"""Learning on LoRAs: read adapters, keep collections of them, and predict from their weights what they were made for.

Putterman, Lim, Gelberg, Bronstein, Jegelka, Maron: GL equivariant metanetworks for learning on low rank weight spaces
(arXiv 2410.04207). GL(r) acts on every pair of factors by (U, V) -> (U R, V R^-T).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
