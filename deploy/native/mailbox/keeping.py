"""Messages on disk, so that they survive a restart: one file each, with metadata in its first line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from native.mailbox.messages import Received

_END = ".mail"
_UNFINISHED = ".part"


class Folder:
    """The folder of the messages. A file that cannot be read is left there, and its message is not shown."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        # Of a mailbox that was killed while it wrote them.
        for unfinished in path.glob(f"*{_UNFINISHED}"):
            unfinished.unlink(missing_ok=True)

    def load(self) -> list[Received]:
        """Return the messages, oldest first."""
        found = []
        for file in sorted(self._path.glob(f"*{_END}")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                facts, _, raw = file.read_bytes().partition(b"\n")
                known = json.loads(facts)
                found.append(
                    Received(
                        raw,
                        known["sender"],
                        tuple(known["recipients"]),
                        id=file.stem.rpartition("-")[2],
                        created=datetime.fromisoformat(known["created"]),
                    )
                )
        return found

    def write(self, message: Received) -> None:
        """Store a message atomically: a file that was not finished is not loaded."""
        facts = {
            "sender": message.sender,
            "recipients": message.recipients,
            "created": message.created.isoformat(),
        }
        file = self._file(message)
        unfinished = file.with_suffix(_UNFINISHED)
        unfinished.write_bytes(json.dumps(facts).encode() + b"\n" + message.raw)
        unfinished.rename(file)

    def remove(self, messages: Iterable[Received]) -> None:
        """Delete the files of messages; one that has none is ignored."""
        for message in messages:
            self._file(message).unlink(missing_ok=True)

    def _file(self, message: Received) -> Path:
        return self._path / f"{message.created.timestamp():018.6f}-{message.id}{_END}"
