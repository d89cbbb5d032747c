"""What the domain adds."""

from coset.core.domains import Domain

DOMAIN = Domain("points", "coset_points", kinds={"points": "coset_points.experiment:PointsRecipe"})
