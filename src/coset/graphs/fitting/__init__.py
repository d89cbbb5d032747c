"""The task that Lightning runs on graphs, and the engine around it."""
