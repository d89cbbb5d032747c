"""Keys of a recipe that take any of the options of a registry: schemas are derived from what is registered."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from coset.core.options import Options
from coset.core.registry import Registry

Given = TypeVar("Given", bound=Options)


class OptionsRegistry(Registry[type[Options]]):
    """Classes of options, each registered under the names that its field ``name: Literal[...]`` allows.

    A recipe's key that takes any of them is annotated ``Annotated[Base, registry.choice]``: the value of ``name``
    chooses the class, and what is registered later can be chosen, too.
    """

    def add(self, options: type[Given]) -> type[Given]:
        """A decorator for the class.

        Raises:
            ValueError: It has no field ``name`` of literals.
        """
        field = getattr(options, "model_fields", {}).get("name")
        names = get_args(field.annotation) if field is not None else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{options.__name__} needs a field name: Literal[...] to be a {self.what}")
        self.register(*names)(options)
        return options

    @property
    def choice(self) -> Choice:
        """The annotation of a key that takes one of these."""
        return Choice(self)

    def classes(self) -> list[type[Options]]:
        """Each once."""
        return list(dict.fromkeys(self._all().values()))


def _names_of(options: type[Options]) -> tuple[str, ...]:
    return tuple(get_args(options.model_fields["name"].annotation))


class Choice:
    """In the annotation of a key: options of any class of a registry, chosen by their ``name``."""

    def __init__(self, registry: OptionsRegistry):
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # By name: in messages, the order must not hang on which module was imported first.
        classes = tuple(sorted(self.registry.classes(), key=lambda options: _names_of(options)))
        if len(classes) == 1:
            return handler.generate_schema(classes[0])
        return handler.generate_schema(Annotated[Union[classes], Field(discriminator="name")])  # noqa: UP007
