"""Sets of points with a label, as a domain of Coset."""
