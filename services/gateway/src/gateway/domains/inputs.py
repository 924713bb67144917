"""The inputs and answers of sender domains."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from contracts.domains import Domain, DomainName, DomainStatus
from gateway.http.filters import CreatedWithin, PageQuery, Several


class DomainInput(BaseModel):
    """The body of `POST /v1/domains`. A subdomain is a separate domain."""

    model_config = ConfigDict(extra="forbid")
    name: DomainName = Field(description="the part after the @, such as `example.com`")


class DomainsQuery(CreatedWithin, PageQuery):
    """The query of `GET /v1/domains`: newest first; the cursor is the last id seen."""

    # A domain has a dozen records, each with the values found in DNS.
    limit: int = Field(default=50, ge=1, le=50)
    status: Several[DomainStatus] | None = None
    name: DomainName | None = None
    cursor: UUID | None = Field(default=None, description="`next_cursor` of the page before")  # type: ignore[assignment]  # an id, not any text


class DomainList(BaseModel):
    """A page of sender domains, newest first."""

    data: list[Domain]
    next_cursor: UUID | None
