"""Graphs: molecules and other data, what is added to them, and networks that see more than message passing does."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
