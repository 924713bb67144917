"""Lookups at a DNS server that answers, has no record or is silent, each in bounded time and size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from emailer.domains.lookups import (
    MOST_AT_ONCE,
    MOST_CHARACTERS,
    MOST_OF_OWNER,
    MOST_VALUES,
    DnsLookups,
    read_servers,
)
from emailer.domains.records import DnsAnswer
from support.doubles import dns
from support.doubles.dns import DnsServer


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with dns.running() as running:
        yield running


def lookups(server: DnsServer, deadline_s: float = 2) -> DnsLookups:
    return DnsLookups(read_servers(server.address), deadline_s=deadline_s)


async def test_a_long_text_comes_whole_over_tcp(server: DnsServer) -> None:
    value = "v=DKIM1; k=rsa; p=" + "A" * 700
    server.put("sel._domainkey.acme.example", "TXT", value)
    assert await lookups(server).values("sel._domainkey.acme.example", "TXT", owner_id="1") == DnsAnswer(
        (value,)
    )


async def test_an_alias_is_looked_up(server: DnsServer) -> None:
    server.put("bounces.acme.example", "CNAME", "bounces.relay.example")
    assert await lookups(server).values("bounces.acme.example", "CNAME", owner_id="1") == DnsAnswer(
        ("bounces.relay.example",)
    )


async def test_a_missing_record_is_distinguished_from_a_failed_lookup(server: DnsServer) -> None:
    server.put("acme.example", "CNAME", "other.example")
    server.broken.add("broken.example")
    asked = lookups(server)
    assert await asked.values("nowhere.example", "TXT", owner_id="1") == DnsAnswer()
    assert await asked.values("acme.example", "TXT", owner_id="1") == DnsAnswer()
    assert await asked.values("broken.example", "TXT", owner_id="1") == DnsAnswer(is_available=False)


async def test_a_silent_server_is_waited_for_until_the_deadline(server: DnsServer) -> None:
    server.silent.add("silent.example")
    found = await lookups(server, deadline_s=0.2).values("silent.example", "TXT", owner_id="1")
    assert found == DnsAnswer(is_available=False)


async def test_silent_names_of_one_owner_leave_places_for_lookups_of_others(server: DnsServer) -> None:
    server.put("acme.example", "TXT", "v=spf1 ~all")
    server.silent |= {f"s{number}.example" for number in range(MOST_AT_ONCE)}
    asked = lookups(server, deadline_s=60)
    theirs = [
        asyncio.create_task(asked.values(f"s{number}.example", "TXT", owner_id="1"))
        for number in range(MOST_AT_ONCE)
    ]
    while len(server.asked) < MOST_OF_OWNER:
        await asyncio.sleep(0.01)
    assert (await asked.values("acme.example", "TXT", owner_id="2")).values == ("v=spf1 ~all",)
    assert not any(task.done() for task in theirs)
    assert len({name for name in server.asked if "TXT s" in name}) == MOST_OF_OWNER
    for task in theirs:
        task.cancel()
    await asyncio.gather(*theirs, return_exceptions=True)


async def test_only_a_bounded_part_of_a_huge_answer_is_looked_at(server: DnsServer) -> None:
    server.put("huge.example", "TXT", *(f"{number} " + "x" * 300 for number in range(150)))
    server.put("long.example", "TXT", "y" * 60_000)
    many = await lookups(server).values("huge.example", "TXT", owner_id="1")
    long = await lookups(server).values("long.example", "TXT", owner_id="1")
    assert len(many.values) == MOST_VALUES
    assert [len(value) for value in long.values] == [MOST_CHARACTERS]


async def test_control_characters_are_replaced(server: DnsServer) -> None:
    server.put("odd.example", "TXT", "a\x00\x1b[31m\x85b")
    (value,) = (await lookups(server).values("odd.example", "TXT", owner_id="1")).values
    assert value.isprintable()


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        ("9.9.9.9", (("9.9.9.9", 53),)),
        (
            "9.9.9.9:5353, ::1,[::1]:54, [fe80::1]",
            (("9.9.9.9", 5353), ("::1", 53), ("::1", 54), ("fe80::1", 53)),
        ),
    ],
)
def test_servers_are_addresses_with_or_without_a_port(
    text: str, servers: tuple[tuple[str, int], ...]
) -> None:
    assert read_servers(text) == servers


@pytest.mark.parametrize("text", ["dns.example", "9.9.9.9:0", "9.9.9.9:x", "[::1]:70000", "1.2.3"])
def test_a_server_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"9\.9\.9\.9"):
        read_servers(text)
