"""Mesh files and point clouds: what is read, triangulations against GUDHI, real meshes against trimesh."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from coset import CosetError
from coset.topology import (
    PointLift,
    alpha_complex,
    betti_numbers,
    classify_surfaces,
    delaunay_complex,
    euler_characteristic,
    is_orientable,
    read_mesh,
    rips_complex,
)
from coset.topology.data.meshes import CGAL, Mesh, cgal_meshes, mesh, triangulated

CUBE = """OFF
# a cube of quadrilaterals
8 6 0
0 0 0
1 0 0
1 1 0
0 1 0
0 0 1
1 0 1
1 1 1
0 1 1
4 3 2 1 0
4 4 5 6 7
4 0 1 5 4
4 1 2 6 5
4 2 3 7 6
4 3 0 4 7
"""


def test_a_cube_of_squares(tmp_path):
    file = tmp_path / "cube.off"
    file.write_text(CUBE)
    cube = read_mesh(file)
    assert cube.complex.counts == (8, 12, 6)
    assert cube.complex.kind == "cell"
    assert list(map(str, classify_surfaces(cube.complex))) == ["sphere"]
    assert triangulated(cube).complex.counts == (8, 18, 12)
    assert triangulated(cube).complex.kind == "simplicial"


CORNERS = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\nelement face 2\n"
    "property list uchar int vertex_indices\nend_header\n"
)


@pytest.mark.parametrize("after", ["", " 1 0 0", " .1 .2 .3 1.0", " 7"])
def test_colours_may_follow_the_vertices_of_a_face(tmp_path, after):
    file = tmp_path / "a.off"
    file.write_text(f"OFF\n4 2 0\n{CORNERS}3 0 1 2{after}\n3 0 1 3{after}\n")
    assert read_mesh(file).complex.counts == (4, 5, 2)


def test_a_whole_ply_of_text_is_read(tmp_path):
    file = tmp_path / "a.ply"
    file.write_text(f"{PLY}{CORNERS}3 0 1 2\n3 0 1 3\n")
    assert read_mesh(file).complex.counts == (4, 5, 2)


@pytest.mark.parametrize("suffix", ["stl", "obj", "ply", "off"])
def test_formats_give_the_same_surface(tmp_path, suffix):
    trimesh = pytest.importorskip("trimesh")
    made = trimesh.creation.torus(2, 1, major_sections=8, minor_sections=5)
    made.export(tmp_path / f"torus.{suffix}")
    complex_ = read_mesh(tmp_path / f"torus.{suffix}").complex
    assert complex_.counts == (40, 120, 80)
    assert list(map(str, classify_surfaces(complex_))) == ["torus"]


def test_equal_places_are_one_vertex_and_unused_ones_go():
    two = mesh(
        np.array([(0, 1, 2), (3, 4, 5)]),
        np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)] * 2 + [(9, 9, 9)])[[0, 1, 2, 1, 2, 6]],
    )
    assert two.complex.counts == (4, 5, 2)
    with pytest.raises(CosetError, match="given twice"):
        mesh(np.array([(0, 1, 2), (3, 4, 5)]), np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)] * 2))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.off", "", "does not begin with OFF"),
        ("a.off", "OFF", "numbers of vertices and faces are missing"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n", "cut short: 3 vertices and 1 faces"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "a face names vertex 7, but vertices are 0 to 2"),
        ("a.off", "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "has no faces"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 x\n0 1 0\n3 0 1 2\n", "cannot be read as a mesh"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 1\n", "lists a vertex twice"),
        ("a.off", CUBE.replace("8 6 0", "8 7 0") + "4 0 1 2 3\n", "is given twice"),
        ("a.stl", "no mesh at all", "."),
        ("a.off", f"OFF\n4 2 0\n{CORNERS}4 0 1 2\n3 0 1 3\n", "face 0 announces 4 vertices: '4 0 1 2'"),
        ("a.off", f"OFF\n4 2 0\n{CORNERS}3 0 1 2 3\n3 0 1 3\n", "face 0 announces 3 vertices: '3 0 1 2 3'"),
        ("a.off", f"OFF\n4 1 0\n{CORNERS}3 0 1 2\n3 0 1 3\n", "1 faces are announced, but '3 0 1 3' follows"),
        ("a.off", "OFF\n3 1 0\n0 0\n1 0\n0 1\n3 0 1 2\n", "vertex 0 has 2 coordinates, not 3"),
        ("a.off", "4OFF\n3 1 0\n0 0 0 1\n1 0 0 1\n0 1 0 1\n3 0 1 2\n", "its first word is 4OFF"),
        ("a.ply", f"{PLY}{CORNERS}3 0 1 2\n", "its header announces 6 rows, but 5 follow"),
        ("a.ply", f"{PLY}{CORNERS}3 0 1 2\n3 0 1\n", "face 1 has 3 numbers, not 4: '3 0 1'"),
        (
            "a.ply",
            f"{PLY.replace('vertex 4', 'vertex 5')}{CORNERS}3 0 1 2\n3 0 1 3\n",
            "announces 7 rows, but 6 follow",
        ),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 1 2\n", "line 5 is a face of 2 vertices: 'f 1 2'"),
        ("a.txt", "", ".txt is no mesh format; choose .off"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CosetError, match=message) as raised:
        read_mesh(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_missing_file():
    with pytest.raises(CosetError, match=r"nowhere.off does not exist"):
        read_mesh("nowhere.off")


def test_a_square_and_its_middle():
    points = np.array([(0.0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0.5)])
    assert delaunay_complex(points).counts == (5, 8, 4)
    assert rips_complex(points, 0.8).counts == (5, 4)
    assert rips_complex(points, 1.1).counts == (5, 8, 4)
    pytest.importorskip("gudhi")
    assert alpha_complex(points, 0.51).counts == (5, 8, 4)
    assert alpha_complex(points, 0.4).counts == (5, 4)
    assert alpha_complex(points, 0.1).counts == (5,)


def test_a_circle_of_points_is_a_circle():
    pytest.importorskip("gudhi")
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = alpha_complex(np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.3)
    assert betti_numbers(circle)[:2] == (1, 1)


def test_delaunay_of_space_is_a_ball():
    ball = delaunay_complex(np.random.default_rng(0).normal(size=(30, 3)))
    assert ball.top == 3
    assert betti_numbers(ball) == (1, 0, 0, 0)


@pytest.mark.parametrize("kind", ["delaunay", "alpha", "rips"])
def test_point_clouds_as_data(kind):
    pytest.importorskip("gudhi")
    data = Data(pos=torch.rand(12, 2, generator=torch.Generator().manual_seed(0)), y=torch.ones(1))
    lifted = PointLift(kind, radius=0.4)(data)
    assert lifted.num_cells.shape == (1, 3)
    assert lifted.num_cells[0, 0] == 12
    assert torch.equal(lifted.y, data.y)


def test_bad_points():
    with pytest.raises(CosetError, match="too few, or lie in a flat"):
        delaunay_complex(np.zeros((4, 2)))
    with pytest.raises(CosetError, match="point 1 has no finite position"):
        delaunay_complex(np.array([(0, 0), (np.nan, 0), (1, 1)]))
    with pytest.raises(CosetError, match=r"points has shape \[3\]"):
        delaunay_complex(np.zeros(3))
    with pytest.raises(CosetError, match="choose delaunay, alpha or rips"):
        PointLift("cech")
    with pytest.raises(CosetError, match="needs a radius"):
        PointLift("alpha")
    with pytest.raises(CosetError, match="no pos"):
        PointLift()(Data(num_nodes=3))


@pytest.mark.skipif(not CGAL.is_file(), reason="libcgal-demo is not installed")
def test_real_meshes_agree_with_trimesh():
    trimesh = pytest.importorskip("trimesh")
    wanted = {"eight": 2, "elephant": 3, "couplingdown": 9, "knot1": 1, "cube_quad": 0, "double-torus-example": 2}
    checked = 0
    for name, read in cgal_meshes(wanted):
        assert isinstance(read, Mesh), read
        (surface,) = classify_surfaces(read.complex)
        assert surface.orientable
        assert is_orientable(read.complex)
        if not surface.boundaries:
            assert surface.genus == wanted[name]
        cut = triangulated(read)
        theirs = trimesh.Trimesh(cut.positions, cut.complex.cells[2].members.reshape(-1, 3), process=False)
        assert surface.euler == euler_characteristic(read.complex) == theirs.euler_number
        checked += 1
    assert checked >= 5
