"""Benchmarks of graph networks: expressivity, counting, norms, bags."""
