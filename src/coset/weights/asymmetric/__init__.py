"""Networks without parameter symmetries, and what lies between minima of networks.

Lim, Putterman, Walters, Maron, Jegelka: The empirical impact of neural parameter symmetries, or lack thereof
(NeurIPS 2024, arXiv 2405.20231).
"""

from coset.weights.asymmetric.asymmetrize import asymmetries, asymmetrize, deasymmetrize, fingerprint

__all__ = ["asymmetries", "asymmetrize", "deasymmetrize", "fingerprint"]
