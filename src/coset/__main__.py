"""``python -m coset``: the command line."""

from coset.cli import main

main()
