"""The request and response models of uploads: the body has the items, and the query has all other fields."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chassis.errors import InvalidInput, MalformedInput
from contracts.batch_options import Priority
from contracts.items import OperationName
from contracts.json_values import LARGEST_INTEGER
from gateway.batches.inputs import BatchTerms
from gateway.http import strict_json
from gateway.http.filters import YesOrNo
from gateway.http.problems import invalid, misfit

_TERMS = TypeAdapter(BatchTerms)
# Members of a JSON body that an upload has in its query: strings, and those written as JSON.
_TEXTS = ("operation", "expires_at")
_DOCUMENTS = ("options", "metadata", "on_finished")


class UploadQuery(BaseModel):
    """The query of `POST /v1/batches`: for an NDJSON upload, the members of a JSON body besides its items."""

    model_config = ConfigDict(extra="forbid")
    operation: OperationName | None = Field(default=None, examples=["echo"])
    options: str | None = Field(
        default=None,
        description="the member `options` of a JSON body, as JSON",
        examples=['{"max_concurrency":4}'],
    )
    metadata: str | None = Field(
        default=None, description="the member `metadata`, as JSON", examples=['{"order":"4711"}']
    )
    expires_at: str | None = Field(
        default=None,
        description="the member `expires_at`, in RFC 3339",
        json_schema_extra={"format": "date-time"},
    )
    on_finished: str | None = Field(
        default=None,
        description="the member `on_finished`, as JSON",
        examples=['{"operation":"echo","payload":"done"}'],
    )
    priority: Priority | None = Field(default=None, description="short for `options` with only this priority")
    open: YesOrNo = Field(default=False, description="the items follow in separate requests")
    only_check: Literal["only"] | None = Field(
        default=None, alias="validate", description="validate the request without accepting it"
    )

    def require_nothing_of_uploads(self) -> None:
        """Raise `InvalidInput` for a parameter that a JSON body contains."""
        for name in (*_TEXTS, *_DOCUMENTS, "priority"):
            if getattr(self, name) is not None:
                raise invalid(f"/{name}", f"A JSON body contains its {name}: leave the parameter out.")

    def read_terms(self) -> tuple[BatchTerms, bytes]:
        """Return the terms of the upload, and the equivalent JSON body.

        Raise `InvalidInput` as for that body.
        """
        if self.priority is not None and self.options is not None:
            raise invalid("/priority", "The options contain the priority: leave the parameter out.")
        members = {name: orjson.dumps(text) for name in _TEXTS if (text := getattr(self, name)) is not None}
        if self.priority is not None:
            members["options"] = orjson.dumps({"priority": self.priority})
        for name in _DOCUMENTS:
            if (text := getattr(self, name)) is None:
                continue
            members[name] = text.encode()
            try:
                strict_json.load(members[name])
            except (MalformedInput, InvalidInput) as error:
                raise invalid(f"/{name}", error.detail) from None
        document = b",".join(b'"%s":%s' % (name.encode(), text) for name, text in members.items())
        document = b"{" + document + b"}"
        try:
            return _TERMS.validate_json(document, strict=True), document
        except ValidationError as error:
            raise misfit("The query does not match its schema; see errors.", error) from None


class AppendQuery(BaseModel):
    """The query of `PUT /v1/batches/{id}/items`."""

    model_config = ConfigDict(extra="forbid")
    offset: int = Field(
        ge=0, le=LARGEST_INTEGER, description="the number of bytes that the upload already has", examples=[0]
    )


class UploadProgress(BaseModel):
    """The progress of an upload: `offset` of the next byte, and the `items` of complete lines."""

    id: UUID
    offset: int
    items: int
