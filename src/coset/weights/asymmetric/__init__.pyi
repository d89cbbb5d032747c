from .asymmetrize import asymmetries, asymmetrize, deasymmetrize, fingerprint

__all__ = ["asymmetries", "asymmetrize", "deasymmetrize", "fingerprint"]
