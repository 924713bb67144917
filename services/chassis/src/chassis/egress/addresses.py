"""Public IP addresses: all except those that the registries reserve for special purposes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# IANA's registry of special-purpose addresses, and some that belong to clouds and networks themselves.
# `is_global` of the standard library is not used: it has changed between releases of Python.
_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by the customers of a provider; Alibaba's metadata are in it
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's platform, which answers every guest
            "169.254.0.0/16",  # link-local; the metadata of most clouds are in it
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata are in it
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
# Beyond it nothing is routed on the internet: ::1, v4-mapped and v4-compatible addresses, NAT64 within a site
# (64:ff9b:1::/48), unique local, link-local and multicast addresses.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, with Teredo (2001::/32), which holds an IPv4 address
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which holds an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
# In networks with IPv6 only, DNS64 returns such addresses for IPv4 servers: the IPv4 address inside decides.
_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_BITS = 0xFFFF_FFFF


def is_public(address: Address) -> bool:
    """Return whether `address` is that of a server on the internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & _IPV4_BITS))
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_6)
