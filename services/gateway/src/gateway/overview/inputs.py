"""The query and the answer of the overview."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from gateway.stocks.inputs import QuoteList, Symbols


class OverviewQuery(BaseModel):
    """The query of `GET /v1/overview`."""

    model_config = ConfigDict(extra="forbid")
    symbols: Symbols | None = None


class PartProblem(BaseModel):
    """The reason why a part of the overview is missing; `code` is the last part of the problem's type."""

    part: str
    code: str
    detail: str


class Overview(BaseModel):
    """The parts that the caller may see; a part that failed is null and listed in `errors`.

    Where `batches_exact` or `emails_exact` is false, some of the numbers are lower bounds: of very many, only
    the newest were counted.
    """

    stocks: QuoteList | None = None
    batches: dict[str, int] | None = None
    batches_exact: bool | None = None
    emails: dict[str, int] | None = None
    emails_exact: bool | None = None
    errors: list[PartProblem]
