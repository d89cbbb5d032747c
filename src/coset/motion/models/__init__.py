"""TracksTo4D and its checkpoints."""
