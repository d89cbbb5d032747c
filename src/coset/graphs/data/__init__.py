"""From what users hold to graphs: molecules, tables, collections, shards, splits."""
