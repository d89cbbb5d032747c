"""Recipes: YAML that says what to run; listed, shown, checked and run by name."""

from coset.recipes.registry import load, names, show

__all__ = ["load", "names", "show"]
