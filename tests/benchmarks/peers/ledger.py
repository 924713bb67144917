"""The record that peers write in the folder `LEDGER`: what was sent and done, and when."""

from __future__ import annotations

import os
import time
from pathlib import Path

_folder = Path(os.environ["LEDGER"])
_done, _sent = (os.open(_folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for name in ("done", "sent"))


def begin() -> None:
    """Note that the first item is about to be sent."""
    (_folder / "begun").write_text(repr(time.time()))


def mark_sent() -> None:
    """Note that the broker has an item."""
    os.write(_sent, b".")


def mark_done() -> None:
    """Note that an item is done; works from all threads and processes at the same time."""
    os.write(_done, b".")


def end() -> None:
    """Note that everything was sent, and what this process has used for it in seconds of CPU."""
    (_folder / "ended").write_text(repr(time.process_time()))
