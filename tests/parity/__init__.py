"""Coset held to the papers' own code: its outputs are read from files, and must be ours in float64."""
