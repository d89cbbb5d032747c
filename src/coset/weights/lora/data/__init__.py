"""LoRA adapters: files, factors, collections."""
