"""Learning on LoRAs: read adapters, keep collections of them, and predict from their weights what they were made for.

Putterman, Lim, Gelberg, Bronstein, Jegelka, Maron: GL equivariant metanetworks for learning on low rank weight spaces
(arXiv 2410.04207). GL(r) acts on every pair of factors by (U, V) -> (U R, V R^-T).
"""

from coset.weights.lora.adapters import LoraAdapter, LoraPair, cosine, gauge, inner_product
from coset.weights.lora.inspection import AdapterFacts, inspect
from coset.weights.lora.reading import load_lora
from coset.weights.lora.writing import save_kohya, save_peft

__all__ = [
    "AdapterFacts",
    "LoraAdapter",
    "LoraPair",
    "cosine",
    "gauge",
    "inner_product",
    "inspect",
    "load_lora",
    "save_kohya",
    "save_peft",
]
