"""What can go wrong with market data: the caller's symbols, and the providers' one vocabulary."""

from __future__ import annotations

from typing import ClassVar, Literal

from chassis.errors import InvalidInput, NotFound, ServiceError
from contracts.message import FieldError

Kind = Literal["auth", "quota", "entitlement", "not_found", "blocked", "upstream_down", "bad_data"]


class InvalidSymbol(InvalidInput):
    """The text cannot be a ticker symbol."""

    code = "invalid-symbol"
    title = "Invalid symbol"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, errors=[FieldError(pointer="/symbol", detail=detail)])


class InvalidCursor(InvalidInput):
    """The cursor was not made by this service for this question."""

    code = "invalid-cursor"
    title = "Invalid cursor"

    def __init__(self) -> None:
        detail = "The cursor does not belong to this question; leave it out to start from the first page."
        super().__init__(detail, errors=[FieldError(pointer="/cursor", detail=detail)])


class InvalidRange(InvalidInput):
    """The range of days ends before it starts."""

    def __init__(self) -> None:
        detail = "end must not be before start"
        super().__init__(detail, errors=[FieldError(pointer="/end", detail=detail)])


class UnknownSymbol(NotFound):
    """No provider that was asked knows the symbol; the others are not asked, the answer is final."""

    code = "unknown-symbol"
    title = "Unknown symbol"
    kind: ClassVar[Kind] = "not_found"

    def __init__(self, symbol: str) -> None:
        super().__init__(f"The symbol {symbol} is not known here; search finds those that are.")


class ProviderFailure(ServiceError):
    """A provider gave no usable answer; the next one is asked instead."""

    status = 503
    kind: ClassVar[Kind]


class AuthFailed(ProviderFailure):
    """The provider refuses our key: somebody has to look at the settings."""

    code = "provider-auth"
    status = 502
    title = "The provider refuses the credentials"
    kind = "auth"


class QuotaExceeded(ProviderFailure):
    """The provider's limit is used up until `retry_after_s` seconds from now."""

    code = "provider-quota"
    title = "The provider's quota is used up"
    retryable = True
    kind = "quota"


class NotEntitled(ProviderFailure):
    """The plan of our key does not include what was asked for."""

    code = "provider-entitlement"
    status = 502
    title = "The provider's plan does not include this"
    kind = "entitlement"


class NotOffered(NotEntitled):
    """The provider never has what was asked for; nobody can do anything about it."""

    title = "The provider does not offer this"


class Blocked(ProviderFailure):
    """Something between us and the provider answers with a page for people."""

    code = "provider-blocked"
    title = "The provider blocks requests"
    kind = "blocked"


class UpstreamDown(ProviderFailure):
    """The provider cannot be reached, is too slow, or fails by itself."""

    code = "provider-down"
    title = "The provider is down"
    retryable = True
    kind = "upstream_down"


class BadData(ProviderFailure):
    """The provider's answer does not have the documented shape, or contradicts itself."""

    code = "provider-bad-data"
    status = 502
    title = "The provider's answer makes no sense"
    kind = "bad_data"
