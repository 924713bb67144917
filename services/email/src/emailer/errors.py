"""Errors of the email service beside the chassis' tree."""

from __future__ import annotations

from chassis.errors import ServiceError


class TooManyUploads(ServiceError):
    """The uploads of an owner take as many bytes as those of one owner may."""

    code = "too-many-uploads"


class TooManySuppressions(ServiceError):
    """The owner would have more suppressed addresses than it may have."""

    code = "too-many-suppressions"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"An owner may suppress at most {most} addresses, and nothing was added; lift some first."
        )


class UnsendableMail(ValueError):
    """A mail cannot be sent as it is; the text says why."""


class TooManyTemplates(ServiceError):
    """An owner has as many templates, or a template as many versions, as there may be."""

    code = "too-many-templates"


class TemplateChanged(ServiceError):
    """A template has another version than its writer has seen."""

    code = "precondition-failed"


class TemplateFailed(Exception):
    """A template cannot be rendered: a code, the part, its line (from 1) and what is wrong."""

    def __init__(self, code: str, detail: str, *, part: str = "", line: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.part = part
        self.line = line
        self.reason = f"{code}: " + (f"line {line}: " if line else "") + detail

    @property
    def described(self) -> str:
        """The reason, behind the part that it is about."""
        return f"{self.part}: {self.reason}" if self.part else self.reason


class SmtpError(Exception):
    """The conversation with the relay failed; the text is fit for the record."""


class RelayUnreachable(SmtpError):
    """No usable connection could be made: refused, timed out, TLS failed, or refused at the greeting."""


class TlsFailed(RelayUnreachable):
    """The relay offered encryption, and the handshake failed."""


class AuthenticationRefused(SmtpError):
    """The relay does not accept our login. No mail can leave until an operator corrects the settings."""


class TooLate(SmtpError):
    """The time of a mail was over before it was begun."""


class ConnectionLost(SmtpError):
    """The connection broke, or an answer did not come in time.

    `after_dot` tells whether the whole mail had been sent: then the relay may have it, or not. `tls` tells
    whether the connection was encrypted, `host` names the relay.
    """

    def __init__(self, reason: str, *, after_dot: bool) -> None:
        super().__init__(reason)
        self.after_dot = after_dot
        self.tls = False
        self.host = ""


class UnreadableKey(Exception):
    """A private key is sealed under a secret that this process was not given."""


class TooManyDomains(ServiceError):
    """The owner has as many domains as one owner may have."""

    code = "too-many-domains"


class DomainExists(ServiceError):
    """The owner has this domain already."""

    code = "domain-exists"


class NoSecretsKey(ServiceError):
    """The service was not given the secret that private keys are sealed under."""

    code = "no-secrets-key"


class EmailChanged(ServiceError):
    """The mail was rescheduled since the caller read it."""

    code = "precondition-failed"


class DomainChangedMeanwhile(ServiceError):
    """The domain has changed since the caller read it."""

    code = "precondition-failed"
