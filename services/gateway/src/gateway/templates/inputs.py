"""The inputs and answers of templates."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from contracts.message import Moment
from contracts.templates import TemplateData, TemplateName, TemplateSource, Version
from gateway.http.filters import PageQuery

Name = Annotated[TemplateName, Field(examples=["welcome"])]


class NewTemplate(TemplateSource):
    """The body of `POST /v1/templates`: a name, and the first version."""

    name: TemplateName


class Preview(BaseModel):
    """The data for a preview of a stored template."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: TemplateData = Field(default_factory=dict)
    version: Version | None = None


class SourcePreview(BaseModel):
    """A template that is not stored, and the data for its preview."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: TemplateSource
    data: TemplateData = Field(default_factory=dict)


class TemplateQuery(BaseModel):
    """The query of `GET /v1/templates/{name}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int | None = Field(default=None, ge=1, le=1_000_000, description="the newest if omitted")


class TemplatesQuery(PageQuery):
    """The query of `GET /v1/templates`: by name; the cursor is the last name seen."""

    cursor: TemplateName | None = Field(default=None, description="`next_cursor` of the page before")


class VersionsQuery(BaseModel):
    """The query of `GET /v1/templates/{name}/versions`: newest first; the cursor is the last version seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Versions may be so large that more of them do not fit into a message.
    limit: int = Field(default=2, ge=1, le=2)
    cursor: int | None = Field(
        default=None, ge=1, le=1_000_000, description="`next_cursor` of the page before"
    )


class TemplateView(BaseModel):
    """A version of a template. Versions never change; mails without a version use the `newest`."""

    name: str
    version: int
    newest: int
    created_at: Moment
    subject: str
    text: str | None = None
    html: str | None = None
    mjml: str | None = None


class TemplateLineView(BaseModel):
    """A template in a list."""

    name: str
    newest: int
    created_at: Moment
    changed_at: Moment


class TemplateList(BaseModel):
    """A page of templates, by name."""

    data: list[TemplateLineView]
    next_cursor: str | None


class VersionList(BaseModel):
    """Versions of a template, newest first."""

    data: list[TemplateView]
    next_cursor: int | None


def view(found: Any) -> TemplateView:
    """Return a version as the model for its owner."""
    return TemplateView(
        name=found.name,
        version=found.version,
        newest=found.newest,
        created_at=found.created_at,
        **found.source.model_dump(),
    )
