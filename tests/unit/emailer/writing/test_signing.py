"""Mails that wait for their signatures are signed together, and each fails by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chassis.errors import Overloaded
from emailer.mails.stored_mail import Signer
from emailer.writing import digests, dkim
from emailer.writing.signing import MailSigner

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
KEY = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
SIGNERS = (Signer("example.com", "s1", "ed25519", KEY),)
BROKEN = (Signer("example.com", "s1", "ed25519", b"no key"),)


@pytest.fixture
def signer() -> Iterator[MailSigner]:
    made = MailSigner()
    yield made
    made.close()


def content(number: int) -> bytes:
    return f"From: a@example.com\r\nSubject: Order {number}\r\n\r\nHello {number}\r\n".encode()


def signed(number: int) -> bytes:
    digest = digests.body_digest(content(number))
    return dkim.sign(content(number), SIGNERS, at=NOW, body_digest=digest)


async def sign(signer: MailSigner, number: int, signers: tuple[Signer, ...] = SIGNERS) -> bytes:
    digest = digests.body_digest(content(number))
    return await signer.sign(content(number), signers, at=NOW, body_digest=digest)


async def test_each_of_many_mails_gets_its_own_signature(signer: MailSigner) -> None:
    found = await asyncio.gather(*(sign(signer, number) for number in range(50)))
    assert found == [signed(number) for number in range(50)]
    assert await sign(signer, 99) == signed(99)


async def test_a_mail_that_cannot_be_signed_fails_alone(signer: MailSigner) -> None:
    signers = [SIGNERS, BROKEN, SIGNERS]
    waiting = [sign(signer, number, each) for number, each in enumerate(signers)]
    first, second, third = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, third) == (signed(0), signed(2))
    assert isinstance(second, ValueError)


async def test_a_caller_that_goes_away_leaves_the_signatures_of_the_others(signer: MailSigner) -> None:
    first = asyncio.create_task(sign(signer, 1))
    others = [asyncio.create_task(sign(signer, number)) for number in range(2, 40)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [signed(number) for number in range(2, 40)]
    assert first.cancelled()


async def test_a_mail_that_is_not_signed_in_time_is_put_off(
    signer: MailSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr("emailer.writing.signing.SIGNED_WITHIN_S", 0.05)
        patched.setattr(dkim, "sign", lambda *_, **__: goes_on.wait() and b"")
        with pytest.raises(Overloaded, match="not signed in time"):
            await sign(signer, 1)
    goes_on.set()
    assert await sign(signer, 2) == signed(2)
