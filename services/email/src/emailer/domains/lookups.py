"""DNS queries: asynchronous, with a deadline, and with only as much of an answer as is used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakValueDictionary

import dns.asyncresolver
import dns.exception
import dns.inet
import dns.nameserver
import dns.resolver

from chassis import logging
from contracts.mail_headers import replace_unsafe
from emailer.domains.records import DnsAnswer, RecordType

log = logging.get(__name__)

DEADLINE_S = 3.0
MOST_VALUES = 50
MOST_CHARACTERS = 2048
# Open queries, in all and of one owner: for a domain whose servers do not answer, each stays open
# until the deadline. The queries of all owners in one round of due checks fit.
MOST_AT_ONCE = 300
MOST_OF_OWNER = 10
_PORT = 53

Server = tuple[str, int]


def read_servers(text: str) -> tuple[Server, ...]:
    """Return the servers in a list such as `9.9.9.9, 127.0.0.1:5353, [::1]:5353`. Raise `ValueError`."""
    found = []
    for entry in (part.strip() for part in text.split(",") if part.strip()):
        host, port = entry, str(_PORT)
        if entry.startswith("["):
            host, _, port = entry[1:].partition("]:") if "]:" in entry else (entry[1:-1], "", port)
        elif entry.count(":") == 1:
            host, _, port = entry.partition(":")
        if not (port.isdecimal() and 0 < int(port) < 65536 and dns.inet.is_address(host)):
            raise ValueError("must be addresses of DNS servers: 9.9.9.9, 127.0.0.1:5353, [::1]:5353")
        found.append((host, int(port)))
    return tuple(found)


class DnsLookups:
    """Queries the configured DNS servers, or those of the system."""

    def __init__(self, servers: Sequence[Server] = (), *, deadline_s: float = DEADLINE_S) -> None:
        self._servers = servers
        self._deadline_s = deadline_s
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def values(self, name: str, type_: RecordType, *, owner_id: str) -> DnsAnswer:
        """Return the records of `name`; whatever DNS answers, nothing is raised.

        An owner with ten open queries waits until one of them is answered; other owners are not held up.
        """
        share = self._shares.get(owner_id)
        if share is None:
            share = self._shares[owner_id] = asyncio.Semaphore(MOST_OF_OWNER)
        try:
            # The owner's share first: a query that waits for it occupies no place of the others.
            async with asyncio.timeout(self._deadline_s), share, self._room:
                answer = await self._resolved().resolve(name, type_, search=False, lifetime=self._deadline_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return DnsAnswer()
        except (dns.exception.DNSException, OSError, TimeoutError, UnicodeError) as error:
            log.info("name not resolved", name=name, type=type_, reason=type(error).__name__)
            return DnsAnswer(is_available=False)
        return DnsAnswer(tuple(_text(record) for record in list(answer)[:MOST_VALUES]))

    def _resolved(self) -> dns.asyncresolver.Resolver:
        # The system's configuration is read at the first query, not when the process starts.
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                self._resolver.nameservers = [
                    dns.nameserver.Do53Nameserver(host, port) for host, port in self._servers
                ]
            self._resolver.timeout = self._deadline_s / 2
        return self._resolver


def _text(record: object) -> str:
    """Return a TXT record's strings as one text, or the target of a CNAME record."""
    strings = getattr(record, "strings", None)
    if strings is None:
        return str(getattr(record, "target", record)).rstrip(".")
    joined = b"".join(strings)[:MOST_CHARACTERS]
    return replace_unsafe(joined.decode("utf-8", "replace"), most=MOST_CHARACTERS)
