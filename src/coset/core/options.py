"""Options: what a recipe may say of one thing, checked; everything else is refused."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options that refuse what they do not know."""

    model_config = ConfigDict(extra="forbid", validate_default=True)
