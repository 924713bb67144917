"""Templates of mails: their content, the reference from a mail, and the requests about them."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json

from contracts.json_values import exact
from contracts.message import Contract, Json, Moment, Reply, Request
from contracts.schema_rules import has_all, lacks_all
from contracts.topology import EMAIL

MOST_SOURCE = 100_000
MOST_SUBJECT = 2_000
MOST_VALUES = 1_000
MOST_DATA_BYTES = 100_000

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _plain(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


def _bounded(data: dict[str, Json]) -> dict[str, Json]:
    if len(to_json(data)) > MOST_DATA_BYTES:
        raise ValueError(f"must have at most {MOST_DATA_BYTES} bytes as JSON")
    return data


TemplateName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", examples=["invoice"])]
Version = Annotated[int, Field(ge=1, le=1_000_000)]
Source = Annotated[str, Field(min_length=1, max_length=MOST_SOURCE), AfterValidator(_plain)]
TemplateData = Annotated[
    dict[str, Json], Field(max_length=MOST_VALUES), AfterValidator(exact), AfterValidator(_bounded)
]


class TemplateUse(BaseModel):
    """The template that a mail is rendered from, and its data; the newest version unless one is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: TemplateName
    version: Version | None = None
    data: TemplateData = Field(default_factory=dict)


class TemplateSource(BaseModel):
    """A template in Jinja2: the subject, and `text`, `html` or `mjml`; not both `html` and `mjml`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"not": {"anyOf": [lacks_all("text", "html", "mjml"), has_all("html", "mjml")]}},
    )

    subject: Annotated[str, Field(min_length=1, max_length=MOST_SUBJECT), AfterValidator(_plain)]
    text: Source | None = None
    html: Source | None = None
    mjml: Source | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.text is None and self.html is None and self.mjml is None:
            raise ValueError("text, html or mjml must be given")
        if self.html is not None and self.mjml is not None:
            raise ValueError("html and mjml must not be given together")
        size = sum(len((part or "").encode()) for part in (self.subject, self.text, self.html, self.mjml))
        if size > MOST_SOURCE:
            raise ValueError(f"subject, text, html and mjml together must have at most {MOST_SOURCE} bytes")
        return self


class Template(Reply):
    """A version of a template, which never changes; mails without a version use the `newest`."""

    name: str
    version: int
    newest: int
    source: TemplateSource
    created_at: Moment


class TemplateLine(Contract):
    """A template in a list."""

    name: str
    newest: int
    created_at: Moment
    changed_at: Moment


class Templates(Reply):
    """A page of templates by name; the next one begins behind `next_cursor`."""

    data: list[TemplateLine]
    next_cursor: str | None


class TemplateVersions(Reply):
    """A page of the versions of a template, newest first; the next one begins behind `next_cursor`."""

    data: list[Template]
    next_cursor: int | None


class TemplateDeleted(Reply):
    """A deleted template, which new mails cannot name. Its last version was `newest`."""

    newest: int | None = None


class RenderedTemplate(Reply):
    """The mail that a template renders; `text` is derived from the HTML if the template has none."""

    subject: str
    text: str
    html: str | None = None


class SaveTemplate(Request):
    """Store a version of a template of `owner_id`: the first one, or the next if the newest is in `expected`.

    With None the template must not exist; an empty list allows every version. A repeated `request_key` of an
    owner returns the version that was stored first.
    """

    message_type: ClassVar[str] = "templates.save.v1"
    reply: ClassVar[type[Reply]] = Template
    service: ClassVar[str] = EMAIL
    owner_id: str
    name: str
    expected: list[int] | None = None
    request_key: str | None = None
    source: TemplateSource


class GetTemplate(Request):
    """Ask for a version of a template, or the newest."""

    message_type: ClassVar[str] = "templates.get.v1"
    reply: ClassVar[type[Reply]] = Template
    service: ClassVar[str] = EMAIL
    owner_id: str
    name: str
    version: int | None = None


class ListTemplates(Request):
    """Ask for the templates of an owner, by name, those behind `after`."""

    message_type: ClassVar[str] = "templates.list.v1"
    reply: ClassVar[type[Reply]] = Templates
    service: ClassVar[str] = EMAIL
    owner_id: str
    after: str = ""
    limit: int = Field(default=50, ge=1, le=200)


class ListTemplateVersions(Request):
    """Ask for the versions of a template, newest first, those before `before`."""

    message_type: ClassVar[str] = "templates.list-versions.v1"
    reply: ClassVar[type[Reply]] = TemplateVersions
    service: ClassVar[str] = EMAIL
    owner_id: str
    name: str
    before: int | None = None
    limit: int = Field(default=2, ge=1, le=2)


class DeleteTemplate(Request):
    """Delete a template whose newest version is one of `expected`; empty means any."""

    message_type: ClassVar[str] = "templates.delete.v1"
    reply: ClassVar[type[Reply]] = TemplateDeleted
    service: ClassVar[str] = EMAIL
    owner_id: str
    name: str
    expected: list[int] = Field(default_factory=list)


class PreviewTemplate(Request):
    """Render a stored template, or a `source` that is not stored."""

    message_type: ClassVar[str] = "templates.preview.v1"
    reply: ClassVar[type[Reply]] = RenderedTemplate
    service: ClassVar[str] = EMAIL
    owner_id: str
    name: str | None = None
    version: int | None = None
    source: TemplateSource | None = None
    data: dict[str, Json] = Field(default_factory=dict)
