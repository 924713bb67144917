"""Destinations of requests: parsed from a URL so strictly that every parser finds the same server."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network
from typing import Self

from chassis.egress.addresses import Address, Network, is_public
from chassis.errors import ServiceError

MOST_CHARACTERS = 2048
_PORTS = {"http": 80, "https": 443}
# Lower ports, except 80 and 443, belong to mail, name and file servers and the like, which are protected.
_FIRST_FREE_PORT = 1024
_MOST_PORT = 65_535
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]\\]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:[/?][^#]*)?)(?:#.*)?",
    re.IGNORECASE,
)
# What JSON Schema can say of them. Ports and names of servers have more rules.
URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z_.-]{1,254})(:[0-9]{1,5})?([/?#][\x21-\x7e]*)?$"
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
# Some parsers read a host as an IPv4 address when its last part is a number, also octal or hexadecimal.
_LIKE_A_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)$")


class DestinationRefused(ServiceError):
    """The destination is not allowed for requests."""

    code = "destination-refused"


@dataclass(frozen=True, slots=True)
class Destination:
    """The server and the target of a URL; `address` is set where the host is an IP address."""

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None

    @property
    def authority(self) -> str:
        """Return the value of the header `Host`."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the destination of `url`. Raise `DestinationRefused` if parsers may differ on it."""
        if len(url) > MOST_CHARACTERS or not _PRINTABLE.fullmatch(url):
            raise DestinationRefused(
                f"The URL must have 1 to {MOST_CHARACTERS} ASCII characters without spaces; "
                "others are written as %xx, and in the name of the server as xn--…"
            )
        found = _URL.fullmatch(url)
        if found is None:
            raise DestinationRefused(
                "The URL must be http(s)://host[:port]/path, without a user name or password in it."
            )
        scheme = found["scheme"].lower()
        host, address = _host_of(found["host"].lower())
        port = int(found["port"] or _PORTS[scheme])
        if port not in _PORTS.values() and not _FIRST_FREE_PORT <= port <= _MOST_PORT:
            raise DestinationRefused(f"Port {port} is refused: use 80, 443, or {_FIRST_FREE_PORT} and above.")
        target = found["target"]
        return cls(scheme, host, port, target if target.startswith("/") else f"/{target}", address)


@dataclass(frozen=True, slots=True)
class InternalTargets:
    """Non-public addresses that may be reached nevertheless, each at one port or at every port."""

    targets: tuple[tuple[Network, int | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the targets in `text`, separated by commas: `10.1.2.3:8080`, `10.1.0.0/16`, `[fd00::1]:80`.

        Raise `ValueError` for anything else; names are not accepted, as anybody may change their addresses.
        """
        return cls(tuple(_target(part.strip()) for part in text.split(",") if part.strip()))

    def require(
        self, addresses: tuple[Address, ...], destination: Destination, *, own: Collection[Address] = ()
    ) -> None:
        """Raise `DestinationRefused` unless every one of `addresses` may be reached.

        The machine's `own` addresses are not public here: servers that listen on all of them may be internal.
        """
        for address in addresses:
            is_allowed = (is_public(address) and address not in own) or any(
                port in (None, destination.port) and address.version == network.version and address in network
                for network, port in self.targets
            )
            if not is_allowed:
                # The address is left out: callers must not learn about the internal network.
                raise DestinationRefused(f"{destination.host} leads to an address that is not public.")


def _target(text: str) -> tuple[Network, int | None]:
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?", text)
    if found is None:
        return ip_network(text), None
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= _MOST_PORT:
        raise ValueError(f"{text} has no port from 1 to {_MOST_PORT}")
    return ip_network(found["six"] or found["four"]), port


def _host_of(text: str) -> tuple[str, Address | None]:
    """Return the host in the form for DNS and `Host`, and the address that it stands for, if it is one."""
    try:
        if text.startswith("["):
            six = IPv6Address(text[1:-1])
            return str(six), six
        # One dot at the end stands for the root and changes nothing.
        name = text[:-1] if text.endswith(".") else text
        if _LIKE_A_NUMBER.match(name.rpartition(".")[2]):
            four = IPv4Address(text)
            return str(four), four
    except AddressValueError:
        raise DestinationRefused(
            "The server's address must be four decimal numbers (192.0.2.1) or an IPv6 address in [ ]."
        ) from None
    if not _NAME.fullmatch(name):
        raise DestinationRefused("The name of the server is not a valid DNS name.")
    return name, None
