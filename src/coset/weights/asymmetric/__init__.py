"""Networks without parameter symmetries, and what lies between minima of networks.

Lim, Putterman, Walters, Maron, Jegelka: The empirical impact of neural parameter symmetries, or lack thereof
(NeurIPS 2024, arXiv 2405.20231).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
