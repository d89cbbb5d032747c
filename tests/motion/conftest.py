"""Small scenes from made-up bodies: no data files are needed."""

import pytest
import torch

from coset.motion.data.scenes import SceneOptions, make_scene
from coset.motion.models.trackster4d import Prediction, TracksTo4D

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scene():
    return make_scene("boxes", SceneOptions(points=60, frames=14), 3)


@pytest.fixture(scope="session")
def clean_scene():
    """No noise, no outliers, nothing lost at random."""
    return make_scene("rod", SceneOptions(points=60, frames=14, noise=0, outliers=0, dropout=0), 1)


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    sizes = {"width": 16, "blocks": 1, "heads": 2, "head_width": 8, "hidden": 16, "basis": 5, "octaves": 4, "kernel": 7}
    return TracksTo4D(**sizes, orbit=True).eval()


@pytest.fixture(scope="session")
def truth():
    def truth(scene, basis=1):
        """The true reconstruction: static cloud at the middle frame, motion left out."""
        points = torch.from_numpy(scene.points)
        clouds = torch.zeros(len(points), basis, 3).double()
        clouds[:, 0] = points[:, points.size(1) // 2]
        frames = scene.tracks.frames
        rotations, positions = torch.from_numpy(scene.rotations), torch.from_numpy(scene.positions)
        ones = torch.ones(frames, basis).double()
        return Prediction(rotations, positions, ones, ones[:, 0], clouds, torch.full((len(points),), 0.01).double())

    return truth
