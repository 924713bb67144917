"""Errors of the email service beside the chassis' tree."""

from __future__ import annotations


class UnsendableMail(ValueError):
    """A mail cannot be sent as it is; the text says why."""


class SmtpError(Exception):
    """Something went wrong between us and the relay; the text is fit for the record."""


class RelayUnreachable(SmtpError):
    """No usable connection could be made: refused, timed out, TLS failed, or refused at the greeting."""


class TlsFailed(RelayUnreachable):
    """The relay offered encryption, and the handshake failed."""


class AuthenticationRefused(SmtpError):
    """The relay wants a login that it does not accept from us. No mail can pass until somebody mends it."""


class TooLate(SmtpError):
    """The time of a mail was over before it was begun."""


class ConnectionLost(SmtpError):
    """The connection broke, or an answer did not come in time.

    `after_dot` tells whether the whole mail had been sent: then the relay may have it, or not. `tls` tells
    whether the connection was encrypted.
    """

    def __init__(self, reason: str, *, after_dot: bool) -> None:
        super().__init__(reason)
        self.after_dot = after_dot
        self.tls = False
