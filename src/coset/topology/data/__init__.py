"""Cell complexes: what they are, where they are read from, and as batches."""
