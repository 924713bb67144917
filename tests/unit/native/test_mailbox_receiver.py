"""The SMTP server of the development mailbox: its outcomes by local part, and its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from native.mailbox.messages import Received, Store
from native.mailbox.receiver import Limits, Receiver

_HEAD = ("EHLO me", "MAIL FROM:<ada@example.org>")


class MailboxClient:
    """A connection to a mailbox."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def reply(self) -> str:
        """Return the last line of the next reply; nothing at the end of the connection."""
        while (line := (await self._reader.readline()).decode())[3:4] == "-":
            pass
        return line.rstrip()

    async def say(self, *lines: str) -> list[str]:
        """Return the reply to each of `lines`."""
        replies = []
        for line in lines:
            self._writer.write(f"{line}\r\n".encode())
            replies.append(await self.reply())
        return replies


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[int]:
    """Run the SMTP side of a mailbox; yield its port."""
    server = await asyncio.get_running_loop().create_server(receiver.protocol, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[MailboxClient]:
    """Connect to a mailbox."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield MailboxClient(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("reject550@example.org", ("reject", 550)),
        ("defer451+tag@example.org", ("defer", 451)),
        ("DataReject554@example.org", ("datareject", 554)),
        ("slow3@example.org", ("slow", 3)),
        ("greylist@example.org", ("greylist", 0)),
        ("dropafter@example.org", ("dropafter", 0)),
        ("ada@example.org", ("", 0)),
        ("rejected550@example.org", ("", 0)),
        ("greylisted@example.org", ("", 0)),
    ],
)
def test_the_local_part_asks_for_the_outcome(address: str, expected: tuple[str, int]) -> None:
    assert Receiver(Store()).script(address) == expected


def test_without_the_script_every_recipient_is_ordinary() -> None:
    assert Receiver(Store(), scripted=False).script("reject550@example.org") == ("", 0)


async def test_a_message_has_a_bounded_number_of_recipients() -> None:
    store = Store()
    async with listening(Receiver(store, limits=Limits(recipients=2))) as port, connected(port) as client:
        await client.reply()
        replies = await client.say(*_HEAD, *(f"RCPT TO:<r{number}@example.org>" for number in range(3)))
        assert [reply[:3] for reply in replies] == ["250", "250", "250", "250", "452"]
        assert replies[-1] == "452 4.5.3 Too many recipients: a message has 2 at most"
        assert [reply[:3] for reply in await client.say("DATA", "Subject: a\r\n\r\nb\r\n.")] == ["354", "250"]
    assert [message.recipients for message in store] == [("r0@example.org", "r1@example.org")]


async def test_the_oldest_greylisted_recipient_is_forgotten_first() -> None:
    receiver = Receiver(Store(), limits=Limits(greylisted=2))
    names = [f"RCPT TO:<greylist+{number}@example.org>" for number in range(3)]
    async with listening(receiver) as port, connected(port) as client:
        await client.reply()
        assert [reply[:3] for reply in await client.say(*_HEAD, *names)][2:] == ["451"] * 3
        # The first is put off again, which the second is forgotten for.
        assert [reply[:3] for reply in await client.say(names[2], names[0], names[1])] == [
            "250",
            "451",
            "451",
        ]


async def test_connections_beyond_the_bound_get_a_reply_and_a_place_is_free_again_at_an_end() -> None:
    receiver = Receiver(Store(), limits=Limits(connections=1))
    async with listening(receiver) as port, connected(port) as first:
        assert (await first.reply()).startswith("220")
        async with connected(port) as second:
            assert await second.reply() == "421 4.3.2 Too many connections; try again later"
            assert await second.reply() == ""
        assert (await first.say("QUIT"))[0].startswith("221")
        assert await first.reply() == ""
        async with connected(port) as third:
            assert (await third.reply()).startswith("220")


async def test_messages_that_come_in_together_are_bounded() -> None:
    receiver = Receiver(Store(), limits=Limits(messages_at_once=1, wait_s=0.01))
    begin = (*_HEAD, "RCPT TO:<bob@example.org>", "DATA")
    async with listening(receiver) as port, connected(port) as first, connected(port) as second:
        await first.reply()
        await second.reply()
        assert (await first.say(*begin))[-1].startswith("354")
        assert (await second.say(*begin))[-1] == "452 4.3.1 Too many messages are coming in; try again later"
        assert (await first.say("Subject: a\r\n\r\nb\r\n."))[0].startswith("250")
        assert (await second.say("DATA"))[0].startswith("354")


async def test_a_message_that_is_too_large_is_refused_with_the_reason() -> None:
    async with listening(Receiver(Store())) as port, connected(port) as client:
        await client.reply()
        [_, refused] = await client.say("EHLO me", "MAIL FROM:<ada@example.org> SIZE=99999999")
    assert refused.startswith("552 ")


async def test_a_message_that_cannot_be_stored_is_put_off() -> None:
    def fail(_: Received) -> None:
        raise OSError(28, "No space left on device")

    store = Store()
    async with listening(Receiver(store, keep=fail)) as port, connected(port) as client:
        await client.reply()
        await client.say(*_HEAD, "RCPT TO:<bob@example.org>", "DATA")
        [refused] = await client.say("Subject: a\r\n\r\nb\r\n.")
    assert refused == "452 4.3.1 The message could not be stored: No space left on device"
    assert len(store) == 0
