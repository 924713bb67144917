"""The inside of a worker process: frames come in and go out, a length and that many bytes each."""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

LENGTH = struct.Struct(">I")
# What a tenant can make large must not take the processor from the services beside it.
NICENESS = 10
# A transport copies what it cannot write at once.
_PIECE_BYTES = 256 * 1024


def pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `parts` in pieces that are written one after the other."""
    for part in parts:
        for start in range(0, len(part), _PIECE_BYTES):
            yield part[start : start + _PIECE_BYTES]


def serve(answer: Callable[[bytes], Iterable[bytes]], *, memory_bytes: int) -> None:
    """Answer each frame with the parts of another one, with little memory, until the input ends."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # Ctrl-C in a terminal is meant for the service, whose end ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while (frame := _read(incoming)) is not None:
        parts = list(answer(frame))
        outgoing.write(LENGTH.pack(sum(map(len, parts))))
        for part in parts:
            outgoing.write(part)
        outgoing.flush()


def _read(incoming: BinaryIO) -> bytes | None:
    head = incoming.read(LENGTH.size)
    return None if len(head) < LENGTH.size else incoming.read(LENGTH.unpack(head)[0])
