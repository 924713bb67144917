"""The worker process's side: it reads and writes frames, each a length and that many bytes."""

from __future__ import annotations

import math
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

LENGTH = struct.Struct(">I")
# Work that a tenant can make large must not take CPU time from the services on the same machine.
NICENESS = 10
# Written in pieces, because a transport copies what it cannot write at once.
_PIECE_BYTES = 256 * 1024


def pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `parts` in pieces, each to be written by itself."""
    for part in parts:
        for start in range(0, len(part), _PIECE_BYTES):
            yield part[start : start + _PIECE_BYTES]


def serve(
    answer: Callable[[bytes], Iterable[bytes]], *, memory_bytes: int, cpu_s: float | None = None
) -> None:
    """Answer each frame with another one, within `memory_bytes`, until the input ends.

    One that takes more than `cpu_s` seconds of processor time ends the process.

    Return, too, once an answer took more than half of the memory: part of it stays in use, and what a tenant
    left behind must not be missing for the work of another.
    """
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # Ctrl-C in a terminal is meant for the service; this process ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while len(head := incoming.read(LENGTH.size)) == LENGTH.size:
        [length] = LENGTH.unpack(head)
        frame = incoming.read(length)
        if cpu_s is not None:
            limit_cpu(cpu_s)
        parts = list(answer(frame))
        outgoing.write(LENGTH.pack(sum(map(len, parts))))
        for part in parts:
            outgoing.write(part)
        outgoing.flush()
        if _most_memory_bytes() > memory_bytes // 2:
            return


def _most_memory_bytes() -> int:
    # In Linux `ru_maxrss` begins with what the process had that started this one: the service itself.
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split(None, 1)[0]) * 1024


def limit_cpu(seconds: float | None) -> None:
    """Have the kernel end this process by `SIGXCPU` once it uses `seconds` more of CPU time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    end = resource.RLIM_INFINITY
    if seconds is not None:
        end = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
