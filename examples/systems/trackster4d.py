# %% [markdown]
# # TracksTo4D: cameras and moving 3D from point tracks
#
# One pass of a network over tracks of points gives the camera's way and points that move (arXiv 2404.07097). A
# made-up scene with boxes, whose truth is known; with your own video: `coset reconstruct video.mp4`.

# %%
import torch

from coset.motion.data.scenes import SceneOptions, make_scene
from coset.motion.models.checkpoint import pretrained
from coset.reports import Axis, figure, points

model, about = pretrained()
scene = make_scene("boxes", SceneOptions(points=60, frames=20), seed=0)
with torch.no_grad():
    found = model(scene.tracks.tensor())
print("cameras:", tuple(found.rotations.shape), "points over time:", tuple(found.points().shape))

# %%
first = found.points()[:, 0]
figure(points(first[:, 0].tolist(), first[:, 1].tolist()), x="x", y=Axis("y", reversed=True, square=True))
