"""Recipes: YAML that says what to run; listed, shown, checked and run by name."""

from coset.recipes.recipe import Recipe
from coset.recipes.registry import load, load_run, names, show, verify

__all__ = ["Recipe", "load", "load_run", "names", "show", "verify"]
