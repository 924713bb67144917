"""The gateway's settings."""

from __future__ import annotations

import ipaddress
import re
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator

from chassis.http1.limits import ConnectionLimits, Network
from chassis.settings import Settings, require_address
from gateway.http.origins import read_origins
from gateway.identity import keys

# What is held for somebody without a key is held for few.
_UNAUTHENTICATED_SHARE = 0.25
_ADDRESS = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")


class GatewaySettings(Settings):
    """The gateway's own settings, beside the shared ones."""

    prefix: ClassVar[str] = "GATEWAY_"

    host: str = Field(
        default="127.0.0.1", description="address of the public listener", examples=["127.0.0.1"]
    )
    port: int = Field(
        default=8080, ge=1, le=65535, description="port of the public listener", examples=["8080"]
    )
    ops_port: int = Field(
        default=8090, ge=1, le=65535, description="port of /livez, /readyz and /metrics", examples=["8090"]
    )
    key_pepper: SecretStr = Field(
        min_length=16,
        description="secret that API keys are hashed with; losing it makes every key invalid",
        examples=["(32 random bytes in hex)"],
    )
    bootstrap_key: SecretStr | None = Field(
        default=None,
        description="API key of the first administrator, made known at start",
        examples=["tw_live_0123456789abcdef_(49 characters)"],
    )
    quote_fresh_s: float = Field(
        default=5,
        gt=0,
        description="seconds for which a pushed quote is answered without asking stock-data",
        examples=["5"],
    )
    body_limit_bytes: int = Field(
        default=1 << 20, ge=1024, description="largest JSON body", examples=["1048576"]
    )
    upload_limit_bytes: int = Field(
        default=1 << 30, ge=1024, description="largest NDJSON upload", examples=["1073741824"]
    )
    request_timeout_s: float = Field(
        default=5, gt=0, le=30, description="how long a request may take by default", examples=["5"]
    )
    socket_buffer_bytes: int = Field(
        default=1 << 20,
        ge=65536,
        description="most bytes that wait for one slow WebSocket before it is closed",
        examples=["1048576"],
    )
    most_sockets: int = Field(
        default=5000, ge=1, description="most WebSocket and SSE connections at a time", examples=["5000"]
    )

    most_connections: int = Field(
        default=6000,
        ge=8,
        description="most connections at a time; a quarter of them may be without a valid key",
        examples=["6000"],
    )
    connections_per_address: int = Field(
        default=500,
        ge=4,
        description="most connections of one address (IPv6: of one /64); a quarter without a valid key",
        examples=["500"],
    )
    trusted_proxies: str = Field(
        default="",
        description="networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed",
        examples=["10.0.0.0/8,fd00::/8"],
    )

    cors_origins: str = Field(
        default="",
        description="origins whose pages may call the API from a browser; none: only its own",
        examples=["https://app.example.com,http://localhost:5173"],
    )

    retention_days: int = Field(
        default=90,
        ge=1,
        description="days after its end that the gateway forgets accepted work and a task's unique_key",
        examples=["90"],
    )
    audit_retention_days: int = Field(
        default=365,
        ge=1,
        description="days for which it is kept who changed users, keys and parked messages",
        examples=["365"],
    )
    prometheus_url: SecretStr | None = Field(
        default=None,
        description="address of the Prometheus that /console/status draws from; none: the page says so",
        examples=["http://127.0.0.1:9090"],
    )

    @property
    def connection_limits(self) -> ConnectionLimits:
        """The limits of the public listener."""
        return ConnectionLimits(
            most=self.most_connections,
            per_address=self.connections_per_address,
            unauthenticated_share=_UNAUTHENTICATED_SHARE,
            trusted_proxies=_networks(self.trusted_proxies),
        )

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins whose pages may call the API from a browser."""
        return read_origins(self.cors_origins)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        read_origins(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        try:
            _networks(value)
        except ValueError as error:
            raise ValueError("not a list of networks, separated by commas: 10.0.0.0/8,fd00::/8") from error
        return value

    @field_validator("bootstrap_key", "prometheus_url", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("bootstrap_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and keys.parse(value.get_secret_value()) is None:
            raise ValueError("not a key: tw_live_<16 hex digits>_<43 characters and a checksum of 6>")
        return value

    @field_validator("prometheus_url")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if not _ADDRESS.fullmatch(value.get_secret_value()):
            raise ValueError("not an address: http://<host>:<port>")
        return require_address(value, "http", "https")


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
