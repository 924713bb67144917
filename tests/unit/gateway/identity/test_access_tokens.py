"""Access tokens of an issuer: valid ones, and every kind of invalid one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable

import pytest

from chassis.errors import Unauthenticated
from contracts.scopes import Scope
from gateway.identity.access_tokens import AccessTokens, is_token
from gateway.identity.issuer_keys import IssuerKeys
from gateway.identity.scope_rules import read_rules
from support.doubles.issuer import AUDIENCE, Issuer, ec_key, public_jwk, public_pem, rsa_key

Forge = Callable[[Issuer], str]


@pytest.fixture
async def tokens(issuer: Issuer) -> AsyncIterator[AccessTokens]:
    keys = IssuerKeys(issuer.url, cooldown_s=0)
    yield AccessTokens(
        keys,
        issuer=issuer.url,
        audience=AUDIENCE,
        algorithms=["RS256", "ES256"],
        rules=read_rules("scope[*]=*;groups[ops]=admin"),
    )
    await keys.close()


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def signed_with_public_key(issuer: Issuer) -> str:
    """Return a token whose shared secret is the issuer's public key."""
    _, body, _ = issuer.token().split(".")
    head = encoded({"typ": "at+jwt", "kid": "one", "alg": "HS256"})
    secret = public_pem(rsa_key("one"))
    signature = hmac.digest(secret, f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def unsigned(issuer: Issuer) -> str:
    _, body, _ = issuer.token().split(".")
    return f"{encoded({'typ': 'at+jwt', 'kid': 'one', 'alg': 'none'})}.{body}."


def changed(issuer: Issuer) -> str:
    head, _, signature = issuer.token().split(".")
    return f"{head}.{issuer.token('somebody-else').split('.')[1]}.{signature}"


BAD: dict[str, tuple[str, Forge]] = {
    "no signature at all": ("must be signed with", unsigned),
    "HS256 with the public key": ("must be signed with", signed_with_public_key),
    "an algorithm that is not listed": ("must be signed with", lambda i: i.token(algorithm="RS384")),
    "a changed claim": ("signature", changed),
    "another key of the same name": ("signature", lambda i: i.token(key=rsa_key("two"))),
    "a key that the issuer does not have": ("does not publish", lambda i: i.token(kid="nine")),
    "a key of another kind": ("does not publish", lambda i: i.token(key=ec_key("e"), algorithm="ES256")),
    "a type of its own": ("typ must be", lambda i: i.token(typ="JWT")),
    "no type": ("typ must be", lambda i: i.token(typ=None)),
    "an identity token": ("typ must be", lambda i: i.token(typ="id+jwt")),
    "another issuer": ("another issuer", lambda i: i.token(iss="https://evil.example.com")),
    "another audience": ("another audience", lambda i: i.token(aud="https://other.example.com")),
    "other audiences": ("another audience", lambda i: i.token(aud=["a", "b"])),
    "expired": ("expired", lambda i: i.token(lasts_s=-60)),
    "not yet valid": ("not valid yet", lambda i: i.token(nbf=int(time.time()) + 120)),
    "made in the future": ("not valid yet", lambda i: i.token(iat=int(time.time()) + 120)),
    "an end that is no number": ("claim", lambda i: i.token(exp="tomorrow")),
    "an end without end": ("claim", lambda i: i.token(exp=float("inf"))),
    "an empty subject": ("sub", lambda i: i.token("")),
    "a long subject": ("sub", lambda i: i.token("x" * 256)),
    "a subject that is a number": ("claim", lambda i: i.token(sub=7)),
    "a demand that nobody understands": (
        "neither an API key nor",
        lambda _: f"{encoded({'typ': 'at+jwt', 'alg': 'RS256', 'crit': ['x'], 'x': 1})}.e30.c2ln",
    ),
    "a head that is no JSON": ("neither an API key nor", lambda _: "bm90.e30.c2ln"),
    "a head that is a list": ("neither an API key nor", lambda _: f"{encoded([1])}.e30.c2ln"),
    "a deep head": ("neither an API key nor", lambda _: f"{encoded('x')[:1]}{'Ww' * 3000}.e30.c2ln"),
    **{
        f"no {name}": ("must have the claims", lambda i, name=name: i.token(without=name))  # type: ignore[misc]
        for name in ("iss", "sub", "aud", "exp", "iat")
    },
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_token_is_refused_with_the_reason(
    tokens: AccessTokens, issuer: Issuer, case: str
) -> None:
    reason, forge = BAD[case]
    with pytest.raises(Unauthenticated, match=reason) as refused:
        await tokens.verify(forge(issuer))
    assert 'error="invalid_token"' in refused.value.headers["www-authenticate"]


async def test_a_valid_token_tells_its_subject_and_its_scopes(tokens: AccessTokens, issuer: Issuer) -> None:
    ends_at = int(time.time()) + 300
    claims = await tokens.verify(
        issuer.token("ann", scope="quotes:read openid", groups=["ops", "all"], name="Ann", exp=ends_at)
    )
    assert (claims.issuer, claims.subject, claims.name) == (issuer.url, "ann", "Ann")
    assert claims.scopes == {Scope.QUOTES_READ, Scope.ADMIN}
    assert claims.ends_at == ends_at


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT"])
async def test_the_type_is_that_of_an_access_token(tokens: AccessTokens, issuer: Issuer, typ: str) -> None:
    assert (await tokens.verify(issuer.token(typ=typ, aud=["x", AUDIENCE]))).subject == "ann"


async def test_a_token_may_come_a_little_early_and_never_late(tokens: AccessTokens, issuer: Issuer) -> None:
    soon = int(time.time()) + 10
    assert (await tokens.verify(issuer.token(nbf=soon, iat=soon))).subject == "ann"
    with pytest.raises(Unauthenticated, match="expired"):
        await tokens.verify(issuer.token(lasts_s=-1))


async def test_an_address_counts_only_when_the_issuer_has_verified_it(
    tokens: AccessTokens, issuer: Issuer
) -> None:
    for verified in (None, False, "true", 1):
        token = issuer.token(email="ann@example.com", email_verified=verified)
        assert (await tokens.verify(token)).email is None
    token = issuer.token(email="ann@example.com", email_verified=True)
    assert (await tokens.verify(token)).email == "ann@example.com"


async def test_keys_of_elliptic_curves_work_too(tokens: AccessTokens, issuer: Issuer) -> None:
    issuer.keys.append(public_jwk(ec_key("e"), kid="e"))
    assert (await tokens.verify(issuer.token(key=ec_key("e"), kid="e", algorithm="ES256"))).subject == "ann"


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "tw_live_0123456789abcdef_x", "a.b.c d", "a.é.c"])
def test_a_text_without_the_form_of_a_token_is_no_token(text: str) -> None:
    assert not is_token(text)
