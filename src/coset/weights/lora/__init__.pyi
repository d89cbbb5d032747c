from .applying import apply
from .combining import Mixing, combine
from .data.adapters import LoraAdapter, LoraPair, cosine, gauge, inner_product
from .data.inspection import AdapterFacts, inspect
from .data.reading import load_lora
from .data.writing import save_comfyui, save_diffusers, save_kohya, save_peft

__all__ = [
    "AdapterFacts",
    "LoraAdapter",
    "LoraPair",
    "Mixing",
    "apply",
    "combine",
    "cosine",
    "gauge",
    "inner_product",
    "inspect",
    "load_lora",
    "save_comfyui",
    "save_diffusers",
    "save_kohya",
    "save_peft",
]
