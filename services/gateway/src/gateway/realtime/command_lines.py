"""The commands of one frame: JSON objects, one a line."""

from __future__ import annotations

from typing import Any

from chassis.errors import MalformedInput
from gateway.http import strict_json
from gateway.realtime.codes import CloseCode, CloseConnection

_MOST_COMMANDS = 512


def read_lines(frame: str | bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the lines of a frame with their commands. Raise `CloseConnection` if one is not a command."""
    data = frame.encode() if isinstance(frame, str) else frame
    lines = data.strip().split(b"\n", _MOST_COMMANDS)
    if len(lines) > _MOST_COMMANDS:
        raise CloseConnection(CloseCode.BAD_REQUEST, f"A frame may have at most {_MOST_COMMANDS} commands.")
    try:
        found = [(line, strict_json.read(line)) for line in lines]
    except MalformedInput as error:
        raise CloseConnection(CloseCode.BAD_REQUEST, error.detail) from None
    if not all(isinstance(command, dict) for _, command in found):
        raise CloseConnection(CloseCode.BAD_REQUEST, "A command must be a JSON object.")
    return found
