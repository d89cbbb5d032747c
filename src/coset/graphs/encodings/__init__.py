"""What is computed of a graph before a network sees it: spectra, coarsenings."""
