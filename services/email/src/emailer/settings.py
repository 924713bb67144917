"""Settings of the email service, read from `EMAIL_…` and the shared variables."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from chassis.settings import Settings, readable_by
from contracts import addresses
from contracts.mail import MOST_UPLOAD_BYTES
from contracts.retention import MOST_DAYS
from emailer.domains.keys import KeySafe
from emailer.domains.lookups import read_servers
from emailer.domains.progress import CheckSchedule
from emailer.mails.domain_limits import DomainLimits
from emailer.retention.removal import Retention
from emailer.sending import hosts, own_rules
from emailer.sending.guard import RecipientGuard
from emailer.sending.hosts import TlsPolicy

OnAmbiguous = Literal["retry", "hold"]


class EmailSettings(Settings):
    """The settings of the email service, in addition to the shared ones."""

    prefix: ClassVar[str] = "EMAIL_"

    host: str = Field(
        default="127.0.0.1", description="address of the internal HTTP listener", examples=["127.0.0.1"]
    )
    port: int = Field(
        default=8082, ge=1, le=65535, description="port of the internal HTTP listener", examples=["8082"]
    )
    default_sender: Annotated[str, readable_by(addresses.parse)] = Field(
        default="Tickwire <no-reply@tickwire.example>",
        description="sender of mails that name none",
        examples=["Tickwire <no-reply@example.com>"],
    )
    smtp_host: Annotated[str, readable_by(hosts.read)] = Field(
        default="127.0.0.1",
        description="host of the SMTP relay; or several, each as host or host:port, which are tried in order",
        examples=["smtp.example.com", "smtp-1.example.com, smtp-2.example.com:2525"],
    )
    smtp_port: int = Field(
        default=1025, ge=1, le=65535, description="port of the SMTP relay", examples=["587"]
    )
    smtp_tls: TlsPolicy = Field(
        default="opportunistic",
        description="off, opportunistic (STARTTLS when offered), required, or implicit (TLS from the start)",
        examples=["required"],
    )
    smtp_ca_file: str | None = Field(
        default=None,
        description="file of the CA certificates that the relay's is verified with; none: the system's",
        examples=["/etc/ssl/relay.pem"],
    )
    smtp_username: str | None = Field(
        default=None,
        description="user name at the relay; none: no authentication",
        examples=["tickwire"],
    )
    smtp_password: SecretStr | None = Field(
        default=None, description="password at the relay", examples=["secret"]
    )
    smtp_hello: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9.:\[\]-]+$",
        description="host name that is sent in EHLO; none: the name of this host",
        examples=["mail.example.com"],
    )
    smtp_connections: int = Field(
        default=8, ge=1, le=200, description="most connections of one process to the relay", examples=["8"]
    )
    smtp_deliveries_per_connection: int = Field(
        default=100, ge=1, description="mails after which a connection is replaced", examples=["100"]
    )
    domain_limits: Annotated[str, readable_by(DomainLimits.read)] = Field(
        default="",
        description="limits of destination domains, separated by commas: a domain, or * for every other one, "
        "then how many connections one process may use for it, or how many attempts of all processes may "
        "begin in how many seconds",
        examples=["gmail.com=4,gmail.com=100/60,*=20/1"],
    )
    smtp_idle_s: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="seconds after which an unused connection is closed",
        examples=["30"],
    )
    smtp_timeout_s: float = Field(
        default=60,
        gt=0,
        le=600,
        description="seconds to wait for a reply of the relay, or for it to accept more of a mail",
        examples=["60"],
    )
    route_pause_s: float = Field(
        default=1,
        gt=0,
        le=3600,
        description="first pause in seconds when the relay cannot be reached; doubles up to 30 times this",
        examples=["1"],
    )
    authentication_pause_s: float = Field(
        default=60,
        gt=0,
        le=86_400,
        description="pause in seconds when the relay refuses the login, or reports a sending limit",
        examples=["60"],
    )
    refusals_before_pause: int = Field(
        default=20,
        ge=2,
        le=10_000,
        description="refusals of mails to many domains within a minute after which sending is paused",
        examples=["20"],
    )
    retry_scale: float = Field(
        default=1,
        gt=0,
        le=1000,
        description="factor of the waits between attempts (1 m, 5 m, 15 m, 1 h, 4 h, 8 h, …)",
        examples=["0.001"],
    )
    expires_after_s: float = Field(
        default=86_400,
        gt=0,
        le=366 * 86_400,
        description="seconds after which a mail without expires_at expires",
        examples=["86400"],
    )
    on_ambiguous: OnAmbiguous = Field(
        default="retry",
        description="if the relay may have the mail: retry twice with the same Message-ID, or hold it",
        examples=["hold"],
    )
    reply_rules: Annotated[str, readable_by(own_rules.read)] = Field(
        default="",
        description="your own rules for the relay's replies, as JSON; they precede the built-in ones",
        examples=['[{"name": "greylisted", "codes": ["550"], "says": "greylist", "then": "defer"}]'],
    )
    content_days: float = Field(
        default=7,
        ge=0,
        le=MOST_DAYS,
        description="days for which bodies, and attachments of failed mails, are kept after a mail's end",
        examples=["7"],
    )
    record_days: float = Field(
        default=90,
        ge=0,
        le=MOST_DAYS,
        description="days for which a mail's record is kept after its end; at least as long as bodies",
        examples=["90"],
    )
    most_content_days: float = Field(
        default=90,
        ge=0,
        le=MOST_DAYS,
        description="most days for which an owner may have bodies kept; at least the default",
        examples=["90"],
    )
    most_record_days: float = Field(
        default=400,
        ge=0,
        le=MOST_DAYS,
        description="most days for which an owner may have records kept; at least the default",
        examples=["400"],
    )
    secrets_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="secret that encrypts private DKIM keys; without it no keys are made",
        examples=["(32 random bytes in hex)"],
    )
    previous_secrets_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="previous secret, during a rotation: keys encrypted with it are re-encrypted at start",
        examples=["(32 random bytes in hex)"],
    )
    dns_servers: Annotated[str, readable_by(read_servers)] = Field(
        default="",
        description="DNS servers to query for the records of sender domains; none: the system's",
        examples=["9.9.9.9, 127.0.0.1:5353"],
    )
    spf_mechanisms: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z0-9+?~:./_%{}= -]+$",
        description="SPF mechanisms of your relay that sender domains must have; none: no record is shown",
        examples=["include:spf.example.com"],
    )
    return_path_target: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9.-]+$",
        description="host that receives bounces: target of bounces.<domain>; none: no record is shown",
        examples=["bounces.example.com"],
    )
    domains_per_owner: int = Field(
        default=100, ge=1, le=10_000, description="most sender domains of one owner", examples=["100"]
    )
    domain_check_s: float = Field(
        default=21_600.0,
        ge=1,
        le=366 * 86_400,
        description="seconds between two checks of the records of a verified domain",
        examples=["21600"],
    )
    domain_grace_s: float = Field(
        default=259_200.0,
        ge=0,
        le=366 * 86_400,
        description="seconds for which a verified domain may lack its ownership record",
        examples=["259200"],
    )
    allowed_recipients: Annotated[str | None, readable_by(RecipientGuard.read)] = Field(
        default=None,
        description="addresses and domains that may receive mail, for staging; none: all may",
        examples=["me@example.com, @example.org"],
    )
    bounce_domain: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$",
        max_length=190,
        description="domain that bounces are sent to, by signed return paths; needs EMAIL_SECRETS_KEY",
        examples=["bounces.example.com"],
    )
    suppression_days: float = Field(
        default=90,
        gt=0,
        le=3650,
        description="days for which an address that failed stays suppressed, and for which a failure counts",
        examples=["90"],
    )
    most_suppressions: int = Field(
        default=100_000,
        ge=1,
        le=1_000_000,
        description="most addresses that one owner may have suppressed",
        examples=["100000"],
    )
    lease_s: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="seconds after which another process takes over the mails of one that was killed",
        examples=["60"],
    )
    window: int = Field(
        default=400,
        ge=1,
        le=5000,
        description="most recipients that one process holds at a time",
        examples=["400"],
    )
    window_bytes: int = Field(
        default=32 << 20,
        ge=1,
        description="most bytes of mails that one process holds at a time, counted as stored plus as sent",
        examples=["33554432"],
    )

    templates_per_owner: int = Field(
        default=200, ge=1, le=10_000, description="most templates of one owner", examples=["200"]
    )
    template_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="processes that render templates; an owner has one of them at a time",
        examples=["2"],
    )
    writing_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="processes of low priority that build large mails and convert long HTML to text",
        examples=["2"],
    )
    upload_life_s: float = Field(
        default=86_400,
        ge=60,
        le=30 * 86_400,
        description="seconds for which mails may name an upload; removed a day later unless a mail needs it",
        examples=["86400"],
    )
    uploads_owner_bytes: int = Field(
        default=500 << 20,
        ge=MOST_UPLOAD_BYTES,
        description="most bytes of uploads of one owner, including those in progress",
        examples=["524288000"],
    )
    uploads_total_bytes: int = Field(
        default=10 << 30,
        ge=MOST_UPLOAD_BYTES,
        description="most bytes of uploads of all owners",
        examples=["10737418240"],
    )

    @property
    def key_safe(self) -> KeySafe | None:
        """The safe that encrypts private keys; None when no secret is configured."""
        if self.secrets_key is None:
            return None
        previous = self.previous_secrets_key
        return KeySafe(
            self.secrets_key.get_secret_value(), None if previous is None else previous.get_secret_value()
        )

    @property
    def retention(self) -> Retention:
        """For how long the mails of an owner are kept by default and at most."""
        return Retention(
            self.content_days,
            self.record_days,
            self.suppression_days,
            self.most_content_days,
            self.most_record_days,
        )

    @property
    def check_schedule(self) -> CheckSchedule:
        """The interval at which the records of domains are checked, and the grace before one is lost."""
        return CheckSchedule(timedelta(seconds=self.domain_check_s), timedelta(seconds=self.domain_grace_s))

    @field_validator(
        "secrets_key",
        "previous_secrets_key",
        "spf_mechanisms",
        "return_path_target",
        "bounce_domain",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("bounce_domain")
    @classmethod
    def _can_be_signed(cls, value: str | None, info: ValidationInfo) -> str | None:
        # If the secret itself is invalid, that error is reported already.
        if value is not None and info.data.get("secrets_key", "") is None:
            raise ValueError("needs EMAIL_SECRETS_KEY, from which the key that signs return paths is derived")
        return value
