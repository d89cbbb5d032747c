# %% [markdown]
# # TracksTo4D: cameras and moving 3D from point tracks
#
# One pass of a network over tracks of points gives the camera's way and points that move (arXiv 2404.07097). A
# made-up scene with boxes, whose truth is known; with your own video: `coset reconstruct video.mp4 --output 3d`.

# %%
import torch

from coset.motion.data.scenes import SceneOptions, make_scene
from coset.motion.models.checkpoint import pretrained

model, about = pretrained()
scene = make_scene("boxes", SceneOptions(points=60, frames=20), seed=0)
with torch.no_grad():
    found = model(scene.tracks.tensor())
print("cameras:", tuple(found.rotations.shape), "points over time:", tuple(found.points().shape))
