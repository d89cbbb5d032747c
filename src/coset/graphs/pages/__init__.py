"""What the pages of runs on graphs show."""
