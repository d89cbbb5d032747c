"""Options: what a recipe may say of one thing, checked; everything else is refused."""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Options(BaseModel):
    """Options that refuse what they do not know."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Says where the options are written, too."""
        schema = handler(core)
        classes = [base for base in cls.__mro__ if issubclass(base, Options) and base is not Options]
        handler.resolve_ref_schema(schema)["classes"] = [f"{base.__module__}:{base.__name__}" for base in classes]
        return schema


def listed_names(value: Any) -> Any:
    """A validator of lists of names: ``a,b`` means two."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [str(value)] if isinstance(value, int | float) else value


def no_answer(value: Any) -> Any:
    """A validator of numbers: yes or no, which Python takes for 1 and 0, is a ``ValueError``."""
    if isinstance(value, bool):
        raise ValueError("a number was expected, not true or false")
    return value
