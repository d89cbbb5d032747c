"""What starts processes of a run: this machine, torchrun, Ray."""
