"""How adapters of a collection are made."""
