"""The bodies of PATCH: the given fields are changed, and no field can be removed."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, field_validator
from pydantic_core import CoreSchema


class Change(BaseModel):
    """A change of a `thing`: an absent field is None, and null is refused."""

    model_config = ConfigDict(extra="forbid")
    thing: ClassVar[str]

    @field_validator("*", mode="before")
    @classmethod
    def _require_value(cls, value: object) -> object:
        if value is None:
            raise ValueError(f"must be omitted or have a value: no field of a {cls.thing} can be removed")
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the fields without null, which is only their default."""
        found = handler(core_schema)
        for field in handler.resolve_ref_schema(found).get("properties", {}).values():
            if "anyOf" in field:
                [kind] = [one for one in field.pop("anyOf") if one != {"type": "null"}]
                del field["default"]
                field.update({**kind, **field})
        return found
