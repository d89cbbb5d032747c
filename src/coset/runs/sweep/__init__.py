"""Sweeps: one recipe run again and again, with settings varied."""
