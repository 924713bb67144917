"""Reading of the properties of messages, even if their publisher has encoded them wrongly."""

from __future__ import annotations

from pamqp import base, commands

from chassis import logging, redaction

log = logging.get(__name__)

_read = commands.Basic.Properties.unmarshal


def read_leniently() -> None:
    """Deliver messages without the properties that cannot be read, so that they are parked alone.

    Otherwise an error of pamqp, about a text that is not UTF-8 or a time that does not exist, would end the
    connection. The broker would deliver the message again, and so break every later connection.
    """
    commands.Basic.Properties.unmarshal = _read_what_can_be_read  # type: ignore[assignment, method-assign]


def _read_what_can_be_read(properties: base.BasicProperties, flags: int, data: bytes) -> None:
    try:
        _read(properties, flags, data)
    except Exception as error:  # pamqp raises whatever its decoders raise
        log.warning("properties of a message cannot be read", reason=redaction.safe_message(error))
