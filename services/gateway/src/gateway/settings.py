"""The gateway's settings."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from chassis.egress.destinations import InternalTargets
from chassis.http1.limits import ConnectionLimits, Network
from chassis.settings import Settings, readable_by, require_address
from gateway.http.origins import read_origins
from gateway.identity import keys
from gateway.identity.access_tokens import ALGORITHMS
from gateway.identity.issuer_keys import is_safe
from gateway.identity.scope_rules import read_rules
from gateway.limits.policies import DEFAULT_TEXT, read_policies

# The share of connections that clients without a valid key may have.
_UNAUTHENTICATED_SHARE = 0.25
# The remaining quarter is for other owners, including those behind the same address.
_OWNER_SHARE = 0.75
_ADDRESS = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError("not a list of networks, separated by commas: 10.0.0.0/8,fd00::/8") from error


class GatewaySettings(Settings):
    """The gateway's own settings, in addition to the shared ones."""

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
        description="secret for the hashes of API keys; without it every key is invalid",
        examples=["(32 random bytes in hex)"],
    )
    previous_key_pepper: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="during a rotation the next pepper, then the previous one: keys hashed with it work, and "
        "are rehashed when used",
        examples=["(32 random bytes in hex)"],
    )
    bootstrap_key: SecretStr | None = Field(
        default=None,
        description="API key of the first administrator, stored at start",
        examples=["tw_live_0123456789abcdef_(49 characters)"],
    )
    quote_fresh_s: float = Field(
        default=5,
        gt=0,
        description="seconds for which a pushed quote is returned without a request to stock-data",
        examples=["5"],
    )
    body_limit_bytes: int = Field(
        default=1 << 20, ge=1024, description="largest JSON body", examples=["1048576"]
    )
    upload_limit_bytes: int = Field(
        default=1 << 30, ge=1024, description="largest NDJSON upload", examples=["1073741824"]
    )
    email_url: str = Field(
        default="http://127.0.0.1:8082",
        description="URL of the email service, which receives the bytes of uploads without the broker",
        examples=["http://email:8082"],
    )
    parcels_owner_bytes: int = Field(
        default=256 << 20,
        ge=1 << 20,
        description="most bytes of mails of one owner whose attachments wait here for the email service",
        examples=["268435456"],
    )
    parcels_total_bytes: int = Field(
        default=1 << 30,
        ge=1 << 20,
        description="most bytes of such mails of all owners",
        examples=["1073741824"],
    )
    message_id_domain: str = Field(
        default="tickwire.example",
        pattern=r"^[A-Za-z0-9.-]+$",
        description="domain in the Message-ID of mails without a sender",
        examples=["example.com"],
    )
    request_timeout_s: float = Field(
        default=5, gt=0, le=30, description="default time-out of a request in seconds", examples=["5"]
    )
    socket_buffer_bytes: int = Field(
        default=1 << 20,
        ge=65536,
        description="most bytes queued for a slow WebSocket before it is closed",
        examples=["1048576"],
    )
    most_sockets: int = Field(
        default=5000, ge=1, description="most concurrent WebSocket and SSE connections", examples=["5000"]
    )
    most_subscriptions: int = Field(
        default=50_000,
        ge=1,
        description="most subscriptions of all WebSockets and event streams; one owner leaves half free",
        examples=["50000"],
    )
    owner_commands_per_s: int = Field(
        default=500,
        ge=50,
        description="commands per second over all WebSockets of one owner; 25,000 at once",
        examples=["500"],
    )
    rate_limits: Annotated[str, readable_by(read_policies)] = Field(
        default=DEFAULT_TEXT,
        description="limits of a key, by class: requests/seconds; no limit for a class left out or with 0",
        examples=["quote=60000/60,read=30000/60,write=12000/60,send=60000/60,chat=12000/60,batch=6000/60"],
    )
    rate_limit_owner_factor: int = Field(
        default=5,
        ge=1,
        le=1_000_000,
        description="all keys of one user together may have so many times the limit of one",
        examples=["5"],
    )

    most_connections: int = Field(
        default=6000,
        ge=8,
        description="most concurrent connections; a quarter of them may be without a valid key",
        examples=["6000"],
    )
    connections_per_address: int = Field(
        default=500,
        ge=4,
        description="most connections of one address (IPv6: one /64); a quarter of them without a valid key",
        examples=["500"],
    )
    trusted_proxies: Annotated[str, readable_by(_networks)] = Field(
        default="",
        description="networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted",
        examples=["10.0.0.0/8,fd00::/8"],
    )

    cors_origins: Annotated[str, readable_by(read_origins)] = Field(
        default="",
        description="origins whose pages may call the API from a browser; none: only the gateway's own pages",
        examples=["https://app.example.com,http://localhost:5173"],
    )

    oidc_issuer: str | None = Field(
        default=None,
        description="issuer of access tokens (OpenID Connect) for signing in; none: API keys only",
        examples=["https://id.example.com"],
    )
    oidc_audience: str | None = Field(
        default=None,
        validate_default=True,
        max_length=255,
        description="the audience (aud) that access tokens must have; required with an issuer",
        examples=["https://api.example.com"],
    )
    oidc_jwks_url: str | None = Field(
        default=None,
        description="URL of the issuer's keys; none: that of its discovery document",
        examples=["https://id.example.com/keys"],
    )
    oidc_algorithms: str = Field(
        default="RS256,PS256,ES256,EdDSA",
        description="accepted signature algorithms, none with a shared secret",
        examples=["RS256,ES256"],
    )
    oidc_users: Literal["existing", "create"] = Field(
        default="existing",
        description="link a subject to the user with its verified address; create: else create a member",
        examples=["create"],
    )
    oidc_scope_rules: Annotated[str, readable_by(read_rules)] = Field(
        default="scope[*]=*",
        description="scopes that claims grant: <claim>[<value>]=<scope>,<scope>; …",
        examples=["scope[*]=*;groups[ops]=admin"],
    )

    retention_days: int = Field(
        default=90,
        ge=1,
        description="days for which the gateway keeps ended work and a task's unique_key",
        examples=["90"],
    )
    audit_retention_days: int = Field(
        default=365,
        ge=1,
        description="days for which audit entries are kept",
        examples=["365"],
    )
    key_retention_days: int = Field(
        default=90,
        ge=1,
        description="days for which API keys are listed that were revoked or have expired",
        examples=["90"],
    )
    chat_retention_days: int = Field(
        default=365,
        ge=1,
        description="days for which the messages of chat rooms are kept",
        examples=["365"],
    )
    webhook_internal_targets: Annotated[str, readable_by(InternalTargets.parse)] = Field(
        default="",
        description="non-public addresses that webhooks may reach, separated by commas: an "
        "address, an address:port or a network; none: only public ones",
        examples=["10.1.2.3:8080,10.2.0.0/16"],
    )
    prometheus_url: SecretStr | None = Field(
        default=None,
        description="URL of the Prometheus server for /console/status; none: the page says so",
        examples=["http://127.0.0.1:9090"],
    )

    @property
    def connection_limits(self) -> ConnectionLimits:
        """The connection limits of the public listener."""
        return ConnectionLimits(
            most=self.most_connections,
            per_address=self.connections_per_address,
            unauthenticated_share=_UNAUTHENTICATED_SHARE,
            owner_share=_OWNER_SHARE,
            trusted_proxies=_networks(self.trusted_proxies),
        )

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins whose pages may call the API from a browser."""
        return read_origins(self.cors_origins)

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _is_safe(cls, value: str | None) -> str | None:
        if value is not None and not (_ADDRESS.fullmatch(value) and is_safe(value)):
            raise ValueError("not an address: https://…; http:// is for this machine only")
        return value

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_asymmetric(cls, value: str) -> str:
        if not set(value.split(",")) <= set(ALGORITHMS):
            raise ValueError(f"not a list of {', '.join(ALGORITHMS)}, separated by commas")
        return value

    @property
    def rotated_pepper(self) -> str | None:
        """The other pepper of a rotation, next or previous: keys and tokens made with it are valid."""
        previous = self.previous_key_pepper
        return None if previous is None else previous.get_secret_value()

    @field_validator("oidc_audience")
    @classmethod
    def _goes_with_an_issuer(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "oidc_issuer" in info.data and (info.data["oidc_issuer"] is None) != (value is None):
            raise ValueError("GATEWAY_OIDC_ISSUER and GATEWAY_OIDC_AUDIENCE must be set together")
        return value

    @field_validator(
        "bootstrap_key",
        "previous_key_pepper",
        "prometheus_url",
        "oidc_issuer",
        "oidc_audience",
        "oidc_jwks_url",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("bootstrap_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and keys.parse(value.get_secret_value()) is None:
            raise ValueError("not a key: tw_live_<16 hex digits>_<43 characters and a checksum of 6>")
        return value

    @field_validator("email_url")
    @classmethod
    def _is_an_address_without_password(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value) or "@" in value:
            raise ValueError("not an address: http://<host>:<port>")
        return value

    @field_validator("prometheus_url")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if not _ADDRESS.fullmatch(value.get_secret_value()):
            raise ValueError("not an address: http://<host>:<port>")
        return require_address(value, schemes=("http", "https"))
