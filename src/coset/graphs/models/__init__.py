"""Graph networks, one paper a module."""
