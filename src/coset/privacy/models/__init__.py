"""Classifiers invariant under a group, and modules of users."""
