r"""Where moving things are, once cameras and what stands still are known.

A track that moves is a point on every ray it is seen along, at depths z_pn nobody sees. Depths of a body are the
smallest in a sum of squares, all linear in z, robustly re-weighted:

    X_pn = t_n + z_pn d_pn,
    sum |X_p,n+1 - X_pn - (c_n+1 - c_n)|^2 / v^2 + |c_n+1 - c_n|^2 / w^2 + |X_p,n+1 - 2 X_pn + X_p,n-1|^2 / a^2
        + |(X_p - X_q)_{n+1} - (X_p - X_q)_n|^2 / c^2 + |(X_p - X_q)_{n+L} - (X_p - X_q)_n|^2 / b^2
        + (z_pn - z_qn)^2 / f^2
        + (mean over p of up . (X_p,n+N/2 - X_pn))^2 / h^2,     over s^2,

over points p, neighbours q, and the body's mean depth s. Without the last division nearer would always be stiller.
c_n is the way of the whole body, as free as the depths: what it travels counts once a frame. Were the travel of each
of its hundred points to count, a way along the rays, which the tracks tell faintly, would shrink to half.
Between frames neighbours keep their differences, and so they do over L frames: without that what limbs do along the
rays, which is seen only as far as they grow and shrink, adds up to ways that never end.
The last term is there where a ground is seen: a steady way along the rays of a camera that moves steadily is told by
nothing else, and shows as one up or down the world. At a given s the depths are z_0 + s z_1; the best s has a closed
form, and shows where the camera travels more than the body: smoothness in the world tells them apart. Where it does
not, a body is taken to be where the network says, or without one to touch the ground, if one is seen, and its depth is
said to be unknown. No body is put behind static points that it hides.
"""

from coset.motion.movers.bodies import moving_rows
from coset.motion.movers.options import MoverOptions
from coset.motion.movers.placing import Body, place_movers

__all__ = ["Body", "MoverOptions", "moving_rows", "place_movers"]
