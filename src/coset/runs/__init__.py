"""What a run is: its folder and recipe, its schedules and checkpoints, sweeps of runs, and what launches them."""
