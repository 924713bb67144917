"""Reading of the properties of messages, those included that their publisher has written wrongly."""

from __future__ import annotations

from pamqp import base, commands

from chassis import logging, redaction

log = logging.get(__name__)

_read = commands.Basic.Properties.unmarshal


def read_leniently() -> None:
    """Let a message come without the properties that cannot be read: it is parked, and its neighbours go on.

    An error of pamqp, about a text that is not UTF-8 or a time that does not exist, ends the connection. The
    broker would deliver the message again, and break each connection that follows.
    """
    commands.Basic.Properties.unmarshal = _read_what_can_be_read  # type: ignore[assignment, method-assign]


def _read_what_can_be_read(properties: base.BasicProperties, flags: int, data: bytes) -> None:
    try:
        _read(properties, flags, data)
    except Exception as error:  # pamqp raises what its decoders meet
        log.warning("properties of a message cannot be read", reason=redaction.safe_message(error))
