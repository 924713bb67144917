"""Errors of the email service, in addition to those of the chassis."""

from __future__ import annotations

from chassis.errors import ServiceError


class TooManyUploads(ServiceError):
    """The owner's uploads take up all the bytes that one owner may use."""

    code = "too-many-uploads"


class TooManySuppressions(ServiceError):
    """The owner would exceed its limit of suppressed addresses."""

    code = "too-many-suppressions"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"An owner may suppress at most {most} addresses, so none was added; lift suppressions first."
        )


class UnsendableMail(ValueError):
    """A mail cannot be sent as it is; the message says why."""


class TooManyTemplates(ServiceError):
    """An owner has the most templates allowed, or a template has the most versions allowed."""

    code = "too-many-templates"


class TemplateChanged(ServiceError):
    """The template's newest version is not the one that the caller expected."""

    code = "precondition-failed"


class TemplateFailed(Exception):
    """A template cannot be rendered; has a code, the part, its line (from 1) and a description."""

    def __init__(self, code: str, detail: str, *, part: str = "", line: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.part = part
        self.line = line
        self.reason = f"{code}: " + (f"line {line}: " if line else "") + detail

    @property
    def described(self) -> str:
        """The part that failed, followed by the reason."""
        return f"{self.part}: {self.reason}" if self.part else self.reason


class UnwritableMail(Exception):
    """The process that was to build a mail failed at it, as it would again; the message says how."""


class SmtpError(Exception):
    """The conversation with the relay failed; the message may be shown in the mail's record."""


class RelayUnreachable(SmtpError):
    """No usable connection could be made: refused, timed out, TLS failed, or refused at the greeting."""


class RelayFull(RelayUnreachable):
    """The relay accepts no further connection while others with it are open."""


class TlsFailed(RelayUnreachable):
    """The relay offered encryption, and the handshake failed."""


class AuthenticationRefused(SmtpError):
    """The relay does not accept our login. No mail can leave until an operator corrects the settings."""


class TooLate(SmtpError):
    """The mail expired before its attempt began."""


class ConnectionLost(SmtpError):
    """The connection broke, or the relay did not answer in time.

    `after_dot` says whether the whole mail had been sent, so that the relay may have accepted it, and
    `is_silent` whether the connection was there until the time for an answer was over. `tls` says whether it
    was encrypted, `host` names the relay.
    """

    def __init__(self, reason: str, *, after_dot: bool, is_silent: bool = False) -> None:
        super().__init__(reason)
        self.after_dot = after_dot
        self.is_silent = is_silent
        self.tls = False
        self.host = ""


class UnreadableKey(Exception):
    """A private key is encrypted with a secret that this process does not have."""


class TooManyDomains(ServiceError):
    """The owner has the most domains that one owner may have."""

    code = "too-many-domains"


class DomainExists(ServiceError):
    """The owner has this domain already."""

    code = "domain-exists"


class NoSecretsKey(ServiceError):
    """The secret that encrypts private keys is not configured."""

    code = "no-secrets-key"


class EmailChanged(ServiceError):
    """The mail was rescheduled since the caller read it."""

    code = "precondition-failed"


class RetentionChangedMeanwhile(ServiceError):
    """The retention of an owner has changed since the caller read it."""

    code = "precondition-failed"


class DomainChangedMeanwhile(ServiceError):
    """The domain has changed since the caller read it."""

    code = "precondition-failed"
