"""What the answer to a change shows to a caller who may not read the object that was changed."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from pydantic import BaseModel

from contracts.scopes import Scope
from gateway.http.replies import document


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The answer to callers without `scope`: the fields of `model`, and no others.

    A field that has a default in the model always has it. Without an `id` the answer has no `Location`, which
    would tell it.
    """

    scope: Scope
    model: type[BaseModel]

    @property
    def has_location(self) -> bool:
        """Return whether the excerpt may say where the object is."""
        return "id" in self.model.model_fields

    def of(self, body: bytes) -> bytes:
        """Return the excerpt of a whole answer, which is a JSON object."""
        whole = orjson.loads(body)
        return document(
            {
                name: whole.get(name) if field.is_required() else field.default
                for name, field in self.model.model_fields.items()
            }
        )
