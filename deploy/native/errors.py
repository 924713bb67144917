"""The errors that can stop a local start, as one tree; each message says what to do next."""

from __future__ import annotations


class NativeError(Exception):
    """The local stack cannot do what was asked; the message is shown to the user as it is."""


class SettingError(NativeError):
    """A variable has an invalid value."""


class PortTakenError(NativeError):
    """A port that the stack needs is in use."""


class MissingProgramError(NativeError):
    """A server that the stack needs is not installed."""


class AlreadyRunningError(NativeError):
    """Another runner owns the run directory."""


class ProcessFailedError(NativeError):
    """A process ended, or did not become ready in time."""


class NotReadyError(NativeError):
    """A readiness check has not passed yet; the message is the reason."""


class DemoError(NativeError):
    """A step of the tour did not show what it promises."""
