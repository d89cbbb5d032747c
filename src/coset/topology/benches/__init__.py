"""Benchmarks on complexes: tori, blind spots of message passing."""
