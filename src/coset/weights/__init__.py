"""Learning from weights and on weights: LoRA collections, asymmetric networks, merging."""
