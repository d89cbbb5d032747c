"""What varies in a sweep: lists, ranges, seeds."""

import pytest

from coset.core.errors import CosetError
from coset.runs.sweep.spaces import Range, Space, Values, seeds_of, split_values

CHANGES = ["training.epochs=9", "training.learning_rate=loguniform(1e-5,1e-2)", "model.width=8,16"]


def test_ranges_are_drawn_from_the_same_way_each_time():
    space = Space.read(CHANGES)
    few, many = space.drawn(4), space.drawn(9)
    assert few == many[:4]
    assert len(set(many)) == 9
    rates = [float(dict(settings)["training.learning_rate"]) for settings in many]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert {dict(settings)["model.width"] for settings in many} == {"8", "16"}
    assert space.fixed == ("training.epochs=9",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("uniform(0, 0.5)", ("uniform", 0.0, 0.5)),
        ("randint(2,6)", ("randint", 2.0, 6.0)),
        ("[uL,vv]", None),
        ("1e-3", None),
    ],
)
def test_ranges_are_read(text, found):
    assert Range.read(text) == (None if found is None else Range(*found))


@pytest.mark.parametrize("text", ["uniform(1,0)", "loguniform(0,1)", "randint(0.5,3)", "uniform(a,1)"])
def test_impossible_ranges_are_named(text):
    with pytest.raises(ValueError, match=r"bound"):
        Range.read(text)


def test_a_range_needs_a_number_of_draws_and_a_grid_has_only_so_many():
    with pytest.raises(ValueError, match=r"learning_rate=loguniform\(1e-05,0.01\) is a range: say with --samples"):
        Space.read(CHANGES).grid()
    with pytest.raises(ValueError, match="--samples 5: there are only 2 different settings"):
        Space.read(["model.width=8,16"]).drawn(5)


def test_grids_and_examples():
    space = Space.read(["a=1,2", "b=x,y,z", "c=[1,2]"])
    assert space.fixed == ("c=[1,2]",)
    assert space.varied == {"a": Values("12"), "b": Values("xyz")}
    assert len(space.grid()) == 6
    assert list(space.examples()) == [(("a", "1"), ("b", "x")), (("a", "2"), ("b", "y")), (("a", "2"), ("b", "z"))]
    assert Space.read([]).grid() == list(Space.read([]).examples()) == [()]
    with pytest.raises(ValueError, match="'width' must read key=value"):
        Space.read(["width"])


def test_values_and_seeds():
    assert split_values("a,[b,c],'d,e'") == ["a", "[b,c]", "'d,e'"]
    assert split_values("") == [""]
    assert seeds_of("3") == [0, 1, 2]
    assert seeds_of("3,5") == [3, 5]
    for wrong in ("0", "x", "-1,2"):
        with pytest.raises(CosetError, match="give a number of seeds"):
            seeds_of(wrong)
