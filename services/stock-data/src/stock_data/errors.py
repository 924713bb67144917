"""Errors of market data: invalid input, and failures that have the same names for all providers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from chassis.errors import InvalidInput, NotFound, ServiceError
from contracts.message import FieldError

Kind = Literal["auth", "quota", "share", "entitlement", "not_found", "blocked", "upstream_down", "bad_data"]


class InvalidSymbol(InvalidInput):
    """The text cannot be a ticker symbol."""

    code = "invalid-symbol"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, errors=[FieldError(pointer="/symbol", detail=detail)])


class InvalidCursor(InvalidInput):
    """The cursor was not made by this service for this request."""

    code = "invalid-cursor"

    def __init__(self) -> None:
        detail = "The cursor does not belong to this request; leave it out to start from the first page."
        super().__init__(detail, errors=[FieldError(pointer="/cursor", detail=detail)])


class InvalidRange(InvalidInput):
    """The range of days ends before it starts."""

    def __init__(self) -> None:
        detail = "end must not be before start"
        super().__init__(detail, errors=[FieldError(pointer="/end", detail=detail)])


class UnknownSymbol(NotFound):
    """The provider does not know the symbol. This is final: the next provider is not asked."""

    code = "unknown-symbol"
    kind: ClassVar[Kind] = "not_found"

    def __init__(self, symbol: str, *, suggestions: Sequence[str] = ()) -> None:
        hint = f"Did you mean {' or '.join(suggestions)}?" if suggestions else "Search finds known symbols."
        super().__init__(f"The symbol {symbol} is not known. {hint}")
        self.suggestions = list(suggestions)


class ProviderFailure(ServiceError):
    """A provider gave no usable answer; the next provider is asked instead."""

    kind: ClassVar[Kind]


class AuthFailed(ProviderFailure):
    """The provider rejects the credentials in the settings; an operator has to correct them."""

    code = "provider-auth"
    kind = "auth"


class QuotaExceeded(ProviderFailure):
    """The provider's rate limit is reached; it resets in `retry_after_s` seconds."""

    code = "provider-quota"
    kind = "quota"


class ShareUsedUp(ProviderFailure):
    """The owner may make no call now: it has used its share, and the rest is for other owners."""

    code = "provider-share"
    kind = "share"


class NothingLeft(ShareUsedUp):
    """No owner may make a call now: the whole quota has been used, as the provider's answers say."""

    code = "provider-quota"


class NotEntitled(ProviderFailure):
    """The plan of the configured key does not include the requested data."""

    code = "provider-entitlement"
    kind = "entitlement"


class NotOffered(NotEntitled):
    """The provider does not offer this kind of data on any plan, so there is nothing to correct."""


class Blocked(ProviderFailure):
    """Something between this service and the provider answers with an HTML page or a redirect."""

    code = "provider-blocked"
    kind = "blocked"


class UpstreamDown(ProviderFailure):
    """The provider cannot be reached, does not answer in time, or reports an error of its own."""

    code = "provider-down"
    kind = "upstream_down"


class BadData(ProviderFailure):
    """The provider's answer for a symbol does not have the documented shape, or contradicts itself."""

    code = "provider-bad-data"
    kind = "bad_data"


class Undecided(BadData):
    """The provider rejects other symbols of the same request, so that nothing is known of this one."""

    code = "provider-refused"


class NoLiveFeed(ServiceError):
    """Alerts need ticks, and this installation has no feed that produces them."""

    code = "no-live-feed"

    def __init__(self) -> None:
        super().__init__("This installation has no live feed, so no alert can fire.")


class TooManyAlerts(ServiceError):
    """The owner has reached its limit of alerts that can fire."""

    code = "too-many-alerts"

    def __init__(self, most: int) -> None:
        super().__init__(f"You already have {most} alerts that can fire, the most allowed; delete one first.")


class HistoryFull(ServiceError):
    """The limit on stored bars is reached, for all owners together or for one of them."""

    code = "history-full"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"{detail} STOCK_DATA_KEPT_BARS limits the total, and one owner may have half of it."
        )
