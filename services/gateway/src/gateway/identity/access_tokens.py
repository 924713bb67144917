"""Access tokens of an OpenID Connect issuer: JSON Web Tokens as RFC 9068 describes them."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import jwt

from contracts.scopes import Scope
from gateway.identity.issuer_keys import IssuerKeys
from gateway.identity.refusals import Expired, RefusedAtSight, refusal
from gateway.identity.scope_rules import ScopeRule, granted

LONGEST = 8192
# Signatures that only the issuer can create: never `none`, and no algorithm with a shared secret.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_TYPES = ("at+jwt", "application/at+jwt")
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]
_LEEWAY_S = 30
_LONGEST_SUBJECT = 255
_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 86_400
_EXPIRED = ("expired", "The access token has expired.")
_REASONS: Mapping[type[Exception], tuple[str, str]] = {
    jwt.ImmatureSignatureError: ("token-early", "The access token is not valid yet."),
    jwt.InvalidIssuerError: ("token-issuer", "The access token was issued by another issuer."),
    jwt.InvalidAudienceError: ("token-audience", "The access token is meant for another audience."),
    jwt.MissingRequiredClaimError: (
        "token-claims",
        f"The access token must have the claims {', '.join(_REQUIRED)}.",
    ),
}
# Only a wrong signature or an invalid key counts as guessing; these errors do not.
_at_sight = partial(refusal, kind=RefusedAtSight)
_WRONG_CLAIM = ("token-claims", "A claim of the access token has the wrong type.")


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a valid token: its subject, its scopes, and its expiry in Unix time.

    `email` is present only if the issuer has verified it.
    """

    issuer: str
    subject: str
    scopes: frozenset[Scope]
    ends_at: float
    name: str | None = None
    email: str | None = None


def is_token(text: str) -> bool:
    """Return whether `text` has the form of a JSON Web Token, which no API key has."""
    return _FORM.fullmatch(text) is not None


class AccessTokens:
    """Verifies the tokens of one issuer that are meant for this installation."""

    def __init__(
        self,
        keys: IssuerKeys,
        *,
        issuer: str,
        audience: str,
        algorithms: Collection[str],
        rules: Sequence[ScopeRule],
    ) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = sorted(algorithms)
        self._rules = rules

    async def verify(self, text: str) -> Claims:
        """Return the claims of the token `text`.

        Raise `Unauthenticated` if it is invalid, and `Unavailable` if the issuer's keys cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(text)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _at_sight(
                "malformed", "The credential is neither an API key nor an access token."
            ) from None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if str(header.get("typ", "")).lower() not in _TYPES:
            raise _at_sight(
                "token-type", "The token is not an access token: its typ must be at+jwt (RFC 9068)."
            )
        if algorithm not in self._algorithms or "crit" in header or not isinstance(key_id, str | None):
            raise _at_sight("token-algorithm", f"The token must be signed with {', '.join(self._algorithms)}")
        key = await self.keys.find(key_id, algorithm)
        if key is None:
            raise refusal("token-key", "The token is signed with a key that its issuer does not publish.")
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": _REQUIRED},
            )
            ends_at = min(float(claims["exp"]), _LATEST)
        except jwt.InvalidSignatureError:
            raise refusal("token-signature", "The signature of the access token is wrong.") from None
        except jwt.ExpiredSignatureError:
            raise refusal(*_EXPIRED, kind=Expired) from None
        except jwt.PyJWTError as error:
            raise _at_sight(*_REASONS.get(type(error), _WRONG_CLAIM)) from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise _at_sight(*_WRONG_CLAIM) from None
        if ends_at <= time.time():
            # The leeway for differing clocks applies to early tokens, not to expired ones.
            raise refusal(*_EXPIRED, kind=Expired)
        subject = claims["sub"]
        if not subject or len(subject) > _LONGEST_SUBJECT or "\0" in subject:
            raise _at_sight("token-claims", f"The claim sub must have 1 to {_LONGEST_SUBJECT} characters.")
        return Claims(
            self._issuer,
            subject,
            granted(self._rules, claims),
            ends_at,
            name=_text(claims.get("name")) or _text(claims.get("preferred_username")),
            email=_text(claims.get("email")) if claims.get("email_verified") is True else None,
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value.strip()) <= 200 and "\0" not in value else None
