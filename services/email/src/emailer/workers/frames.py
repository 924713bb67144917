"""The inside of a worker process: frames come in and go out, a length and that many bytes each."""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from typing import BinaryIO

LENGTH = struct.Struct(">I")
# What a tenant can make large must not take the processor from the services beside it.
NICENESS = 10


def serve(answer: Callable[[bytes], Iterable[bytes]], *, memory_bytes: int) -> None:
    """Answer each frame with the pieces of another one, with little memory, until the input ends."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # Ctrl-C in a terminal is meant for the service, whose end ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while (frame := _read(incoming)) is not None:
        pieces = list(answer(frame))
        outgoing.write(LENGTH.pack(sum(map(len, pieces))))
        for piece in pieces:
            outgoing.write(piece)
        outgoing.flush()


def _read(incoming: BinaryIO) -> bytes | None:
    head = incoming.read(LENGTH.size)
    return None if len(head) < LENGTH.size else incoming.read(LENGTH.unpack(head)[0])
