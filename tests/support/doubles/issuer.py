"""An OpenID Connect issuer: its discovery document and keys over real HTTP, and tokens that it signs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://api.example.com"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """Return the key of this name, made once in a run: that takes a tenth of a second."""
    assert name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of this name."""
    assert name
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: PrivateKey) -> bytes:
    """Return the public half of a key, as an attacker may use it for a secret."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_jwk(key: PrivateKey, **more: Any) -> dict[str, Any]:
    """Return the public half of a key as a JSON Web Key."""
    if isinstance(key, rsa.RSAPrivateKey):
        return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), **more}
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), **more}


@dataclass
class Issuer:
    """The answers of the issuer, and how often it was connected to and asked for its keys."""

    url: str = ""
    keys: list[Mapping[str, Any]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    discovered: dict[str, Any] = field(default_factory=dict)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    connected: int = 0
    asked: int = 0

    def token(
        self,
        subject: str = "ann",
        *,
        key: Any = None,
        kid: str | None = "one",
        algorithm: str = "RS256",
        typ: str | None = "at+jwt",
        lasts_s: float = 300,
        without: str | None = None,
        **claims: Any,
    ) -> str:
        """Return a good token of `subject`, but for what is given."""
        now = int(time.time())
        document = {
            "iss": self.url,
            "sub": subject,
            "aud": AUDIENCE,
            "iat": now,
            "exp": int(now + lasts_s),
            "client_id": "shop",
            **claims,
        }
        document = {name: value for name, value in document.items() if name != without}
        headers = {"typ": typ, "kid": kid}
        headers = {name: value for name, value in headers.items() if value is not None}
        if typ is None:
            headers["typ"] = ""
        return jwt.encode(document, key or rsa_key("one"), algorithm=algorithm, headers=headers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        self.connected += 1
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if path == "/keys":
            self.asked += 1
            document: Any = {"keys": list(self.keys)}
        else:
            document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovered}
        await self.may_answer.wait()
        body = json.dumps(document).encode() if self.body is None else self.body
        head = f"HTTP/1.1 {self.status} X\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Issuer]:
    """Yield an issuer with one key, `one`, until the end of the block."""
    issuer = Issuer(keys=[public_jwk(rsa_key("one"), kid="one", use="sig", alg="RS256")])
    issuer.may_answer.set()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        issuer.may_answer.set()
        server.close()
