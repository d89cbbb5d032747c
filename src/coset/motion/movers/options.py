"""How moving bodies are found and placed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MoverOptions:
    """How bodies are placed; lengths are in shares of a body's depth.

    Attributes:
        step: v, travel of a point from a frame to the next, beside that of its body.
        way: w, travel of a body; counted once, however many points it has.
        bend: a, change of that travel.
        coherence: c, change of the difference of neighbours from a frame to the next.
        lasting: b, change of that difference over a lag: limbs swing, and come back.
        lag: L, frames of a lag.
        relief: f, difference of the depths of neighbours.
        rise: h, change of a body's mean height over the ground in half of the video, where a ground is seen.
        neighbours: Of each point.
        rounds: Of robust re-weighting.
        cut: Residuals count less beyond so many times the median.
        least: Points of a body; fewer that move are bad tracks.
        company: Share of a body's moving points among the nearest neighbours of one of them, in the median.
        sure: Standard deviation of the log of a body's depth above which the depth is unknown.
    """

    step: float = 0.04
    way: float = 0.01
    bend: float = 0.005
    coherence: float = 0.006
    lasting: float = 0.03
    lag: int = 16
    relief: float = 0.2
    rise: float = 0.03
    neighbours: int = 8
    rounds: int = 3
    cut: float = 8.0
    least: int = 4
    company: float = 0.3
    sure: float = 0.15
