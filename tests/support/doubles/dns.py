"""A DNS server on the loopback with the answers that a test sets, over UDP and, for long answers, TCP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset
from dns.rdata import Rdata

from contracts.domains import DnsRecord

_LONGEST_BY_UDP = 512


@dataclass
class DnsServer:
    """Holds records by (name, type); `broken` names get SERVFAIL, and queries for `silent` ones no answer."""

    port: int = 0
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The server as a setting names it."""
        return f"127.0.0.1:{self.port}"

    def put(self, name: str, type_: str, *values: str) -> None:
        """Replace the records of `name` by `values`."""
        self.records[name.lower(), type_] = list(values)

    def follow(self, records: list[DnsRecord]) -> None:
        """Set the records that the owner of a domain is asked to set."""
        for record in records:
            self.put(record.name, record.type, record.value)

    def text(self, name: bytes, timeout: float = 5) -> bytes | None:
        """Return the TXT record of a name, without using the network."""
        found = self.records.get((name.decode().rstrip(".").lower(), "TXT"))
        return found[0].encode() if found else None

    def answer(self, question: bytes) -> bytes | None:
        """Return the answer to a query, or None to send none."""
        asked = dns.message.from_wire(question)
        name = asked.question[0].name
        type_ = dns.rdatatype.to_text(asked.question[0].rdtype)
        text = name.to_text(omit_final_dot=True).lower()
        self.asked.append(f"{type_} {text}")
        if text in self.silent:
            return None
        response = dns.message.make_response(asked, recursion_available=True)
        if text in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif values := self.records.get((text, type_)):
            response.answer.append(
                dns.rrset.from_rdata_list(name, 60, [_rdata(type_, value) for value in values])
            )
        elif not any(known == text for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire(max_size=65_535)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        found = self._server.answer(data)
        if found is None or self._transport is None:
            return
        if len(found) > _LONGEST_BY_UDP:
            cut = dns.message.make_response(dns.message.from_wire(data))
            cut.flags |= dns.flags.TC
            found = cut.to_wire()
        self._transport.sendto(found, addr)


@asynccontextmanager
async def running() -> AsyncIterator[DnsServer]:
    """Run a server with no records, until the block ends."""
    server = DnsServer()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            length = int.from_bytes(await reader.readexactly(2), "big")
            found = server.answer(await reader.readexactly(length))
            if found is not None:
                writer.write(len(found).to_bytes(2, "big") + found)
                await writer.drain()
        writer.close()

    streams = await asyncio.start_server(converse, "127.0.0.1", 0)
    server.port = streams.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(server), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        transport.close()
        streams.close()


def _rdata(type_: str, value: str) -> Rdata:
    if type_ == "CNAME":
        return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.CNAME, f"{value}.")
    octets = value.encode("latin-1", "replace")
    strings = [octets[start : start + 255] for start in range(0, len(octets), 255)] or [b""]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)
