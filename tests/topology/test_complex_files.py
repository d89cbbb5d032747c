"""Complexes from files: JSON and TopoNetX there and back, graph6, and one line for what is none."""

import pytest

from coset import CosetError
from coset.topology import Complex, classify_surfaces, closed_surface, read_complex, to_toponetx, write_complex
from coset.topology.data.torus import strip, torus


@pytest.mark.parametrize("complex_", [strip(4), closed_surface(1), Complex(4, {1: [(0, 1, 2)], 3: [(0, 1, 2, 3)]})])
def test_json_and_back(tmp_path, complex_):
    write_complex(tmp_path / "a.json", complex_)
    again = read_complex(str(tmp_path / "a.json"))
    assert again.kind == complex_.kind
    assert again.cells == complex_.cells


@pytest.mark.parametrize(("complex_", "name"), [(torus(3, 4), "torus"), (closed_surface(1, False), "projective plane")])
def test_atom_lists_of_toponetx(tmp_path, complex_, name):
    pytest.importorskip("toponetx")
    from toponetx.readwrite.atomlist import write_atomlist

    file = tmp_path / ("a.atomlist" if complex_.kind == "cell" else "a.simplicial.atomlist")
    write_atomlist(to_toponetx(complex_), str(file))
    again = read_complex(str(file))
    assert (again.counts, again.kind) == (complex_.counts, complex_.kind)
    assert str(classify_surfaces(again)[0]) == name


def test_graphs(tmp_path):
    (tmp_path / "a.g6").write_text(">>graph6<<D~{\n")
    assert read_complex(str(tmp_path / "a.g6"), "clique").counts == (5, 10, 10)
    assert read_complex("D~{", "ring", 3).counts == (5, 10, 10)
    assert read_complex("D~{", "none").counts == (5, 10)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[]", "holds no complex: it is a list; expected"),
        ("a.json", '{"cells": {"1": []}}', "holds no complex: vertices: Field required; expected"),
        ("a.json", '{"vertices": 2, "cells": {"one": []}}', "holds no complex: cells.one"),
        ("a.json", '{"vertices": 2, "cells": {"1": [[0, 2]]}}', "names vertex 2"),
        ("a.json", '{"vertices": 3, "kind": "cell", "cells": {"1": [[0, 1]], "2": [[0, 1, 2]]}}', "needs the face"),
        (
            "a.json",
            '{"vertices": 3, "cells": {"1": [0, 1]}}',
            "cells.1.0: Input should be a valid list",
        ),
        ("a.atomlist", "1 2 {", "is no atom list of TopoNetX"),
        ("a.g6", "D~{\nD~{\n", "holds 2 graphs; give one"),
        ("a.g6", "\x7f\x7f", "neither a graph6 string nor a file"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, text, message):
    if name.endswith("atomlist"):
        pytest.importorskip("toponetx")
    (tmp_path / name).write_text(text)
    with pytest.raises(CosetError, match=message) as raised:
        read_complex(str(tmp_path / name))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["no.json", "no.off", "no.atomlist", "no.g6"])
def test_missing_files(source):
    with pytest.raises(CosetError, match=f"{source} does not exist"):
        read_complex(source)


def test_what_is_neither():
    with pytest.raises(CosetError, match="neither a graph6 string nor a file"):
        read_complex("no such thing")
    with pytest.raises(CosetError, match="no lifting 'cone'; did you mean 'none'"):
        read_complex("D~{", "cone")
