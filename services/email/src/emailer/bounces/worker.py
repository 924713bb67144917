"""A process that reads bounces: `python -m emailer.bounces.worker`. Each frame is a message.

The answer is the bounce that it reports, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from emailer.bounces import reading
from emailer.workers import frames

MEMORY_BYTES = 128 << 20
# Of CPU time for a message; a real bounce takes milliseconds. The kernel counts in whole seconds.
CPU_S = 1.0


def answer(frame: bytes) -> Iterable[bytes]:
    """Return the pieces of the answer to a frame."""
    frames.limit_cpu(CPU_S)
    found = asdict(reading.read(frame))
    frames.limit_cpu(None)
    return [json.dumps(found).encode()]


if __name__ == "__main__":
    frames.serve(answer, memory_bytes=MEMORY_BYTES)
