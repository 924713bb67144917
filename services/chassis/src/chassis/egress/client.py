"""One HTTP request to a checked destination, pinned to the addresses that were checked."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import TypeAlias

import certifi
import httpcore

from chassis import logging, plain
from chassis.egress.addresses import Address
from chassis.egress.destinations import Destination, InternalTargets
from chassis.egress.network import MOST_FRAMING_BYTES, MOST_TRIED, FramingTooLarge, PinnedNetwork
from chassis.errors import ServiceError

log = logging.get(__name__)

MOST_ANSWER_BYTES = 128 * 1024
_CONNECT_S = 5.0
_IPV4 = 4
_ANY_PORT = 9
_MOST_CHARACTERS = 200
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

# The event loop's own threads also look up the broker and the database. These are separate, because a look-up
# waits for silent name servers (30 s at most) even after its caller has given up. They start when needed.
MOST_LOOK_UPS = 96
_LOOK_UPS = ThreadPoolExecutor(MOST_LOOK_UPS, thread_name_prefix="look-up")

# Returns the addresses of a host.
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]


class DestinationUnreachable(ServiceError):
    """The server did not answer, or not in time."""

    code = "destination-unreachable"


class AnswerTooLarge(ServiceError):
    """The server's answer is larger than the limit."""

    code = "answer-too-large"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as its sender wrote it; `Host`, lengths and `Accept-Encoding` are added."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The answer of a server, with the names of its headers in lower case; repeated ones are joined."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of `host` by the resolver of the system."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up)
    return [ip_address(str(info[4][0])) for info in found]


def is_own(address: Address) -> bool:
    """Return whether `address` belongs to this machine: packets to it are sent from that address itself.

    No packet is sent to find out.
    """
    family = socket.AF_INET if address.version == _IPV4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _ANY_PORT))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False


class GuardedClient:
    """Sends requests to public servers, and to the internal targets that are allowed.

    A name is resolved once; all of its addresses must be allowed, and connections are made only to them, so
    that a later answer of the DNS changes nothing. Addresses of this machine are not public, whatever their
    range. `Host` and the name in TLS are those of the URL. Redirects are returned like other answers, not
    followed. Proxies of the environment are not used, as they would resolve the name again. No connection is
    kept.
    """

    def __init__(
        self,
        internal: InternalTargets,
        *,
        resolve: Resolve = resolve,
        tls: Callable[[], ssl.SSLContext] | None = None,
        is_own: Callable[[Address], bool] = is_own,
    ) -> None:
        self._internal = internal
        self._resolve = resolve
        self._make_tls = tls or _tls
        self._is_own = is_own
        self._tls: ssl.SSLContext | None = None

    async def fetch(
        self, request: HttpRequest, *, timeout_s: float, most_bytes: int = MOST_ANSWER_BYTES
    ) -> HttpAnswer:
        """Return the answer to `request`, whatever its status.

        Raise `DestinationRefused`, `DestinationUnreachable` or `AnswerTooLarge`.
        """
        destination = Destination.of(request.url)
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._addresses(destination)
                return await self._exchange(request, destination, addresses, most_bytes)
        except (TimeoutError, httpcore.TimeoutException):
            raise DestinationUnreachable(
                f"{destination.host} did not answer within {timeout_s:g} s."
            ) from None
        except FramingTooLarge:
            raise AnswerTooLarge(
                f"The answer of {destination.host} has more than {MOST_FRAMING_BYTES} bytes besides its "
                "content: headers, or sizes of chunks."
            ) from None
        except (OSError, UnicodeError, httpcore.NetworkError, httpcore.ProtocolError) as error:
            reason = plain.text(error, most=_MOST_CHARACTERS) or type(error).__name__
            raise DestinationUnreachable(f"{destination.host} cannot be reached: {reason}.") from error

    async def _addresses(self, destination: Destination) -> tuple[Address, ...]:
        if destination.address is not None:
            found: Iterable[Address] = (destination.address,)
        else:
            found = await self._resolve(destination.host, destination.port)
        addresses = tuple(dict.fromkeys(found))
        if not addresses:
            raise DestinationUnreachable(f"{destination.host} has no address.")
        try:
            own = [address for address in addresses if self._is_own(address)]
            self._internal.require(addresses, destination, own=own)
        except ServiceError:
            shown = [str(address) for address in addresses[:MOST_TRIED]]
            log.warning("destination refused", host=destination.host, port=destination.port, addresses=shown)
            raise
        return addresses

    async def _exchange(
        self, request: HttpRequest, destination: Destination, addresses: Sequence[Address], most_bytes: int
    ) -> HttpAnswer:
        if destination.scheme == "https" and self._tls is None:
            self._tls = self._make_tls()
        headers = {"accept-encoding": "identity", "user-agent": "Tickwire"}
        headers |= {name.lower(): value for name, value in request.headers.items()}
        headers |= {"host": destination.authority, "connection": "close"}
        url = httpcore.URL(
            scheme=destination.scheme.encode(),
            host=destination.host.encode(),
            port=destination.port,
            target=destination.target.encode(),
        )
        network = PinnedNetwork(addresses)
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._tls,
                max_connections=1,
                network_backend=network,
            ) as pool,
            pool.stream(
                request.method,
                url,
                headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
                # A method that can have a body sends its length, also when there is no body.
                content=request.body if request.body or request.method in _WITH_BODY else None,
                extensions={"timeout": {"connect": _CONNECT_S}},
            ) as response,
        ):
            body = bytearray()
            async for part in response.aiter_stream():
                body += part
                network.content_bytes = len(body)
                if len(body) > most_bytes:
                    raise AnswerTooLarge(
                        f"The answer of {destination.host} has more than {most_bytes} bytes."
                    )
            return HttpAnswer(response.status, _joined(response.headers), bytes(body))


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())


def _joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
