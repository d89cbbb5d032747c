"""Registries and choices."""

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import BaseModel

from coset import CosetError
from coset.core.choices import OptionsRegistry
from coset.core.options import Options
from coset.core.registry import Registry


def test_things_are_found_by_name_and_the_nearest_is_named():
    norms = Registry("made-up norm")
    norms.register("batch", "bn")(int)
    norms.register("layer")(str)
    assert norms.names() == ["batch", "bn", "layer"]
    assert norms["bn"] is int
    assert "layer" in norms
    with pytest.raises(CosetError, match="no made-up norm 'bacth'; did you mean 'batch'"):
        norms["bacth"]


def test_two_things_cannot_share_a_name_but_one_may_come_again():
    norms = Registry("made-up norm")

    def again():
        return None

    for _ in range(2):
        norms.register("a")(again)
    with pytest.raises(ValueError, match="two things are registered as made-up norm 'a'"):
        norms.register("a")(print)


def test_modules_are_imported_when_somebody_asks(monkeypatch):
    asked = []
    norms = Registry("made-up norm", lambda: asked.append(1) or ())
    norms.register("a")(int)
    assert norms["a"] is int
    assert not asked
    assert norms.names() == ["a"]
    assert "b" not in norms
    assert asked == [1]


class Model(Options):
    name: str
    width: int = 1


def made():
    models = OptionsRegistry("made-up model", list)

    @models.add
    class Small(Model):
        name: Literal["small", "tiny"] = "small"

    @models.add
    class Deep(Model):
        name: Literal["deep"] = "deep"
        layers: int = 3

    return models, Small, Deep


def test_a_schema_takes_all_that_is_registered_also_later():
    models, small, deep = made()

    class Recipe(BaseModel):
        model: Annotated[Model, models.choice]

    assert type(Recipe(model={"name": "deep", "layers": 4}).model) is deep
    assert type(Recipe(model={"name": "tiny"}).model) is small
    assert Recipe(model={"name": "deep"}).model_dump() == {"model": {"name": "deep", "width": 1, "layers": 3}}
    with pytest.raises(ValueError, match="'deep', 'small', 'tiny'"):
        Recipe(model={"name": "wide"})

    @models.add
    class Wide(Model):
        name: Literal["wide"] = "wide"

    Recipe.model_rebuild(force=True)
    assert type(Recipe(model={"name": "wide"}).model) is Wide


def test_options_without_a_name_are_refused():
    models = OptionsRegistry("made-up model", list)
    with pytest.raises(ValueError, match="Nameless needs a field name"):

        @models.add
        class Nameless(Options):
            kept: ClassVar[int] = 1
