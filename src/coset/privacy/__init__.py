"""What a trained model gives away: training inputs reconstructed from its weights, for audits of one's own models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
