"""What a worker process may take for one answer."""

from __future__ import annotations

import signal
import subprocess
import sys

from emailer.workers.frames import LENGTH

# It never ends, and needs no memory.
SERVE = """
from emailer.workers import frames
frames.serve(lambda frame: [b"" for _ in iter(int, 1) if False], memory_bytes=1 << 30, cpu_s=0.1)
"""


def test_an_answer_that_takes_too_much_processor_time_ends_its_process() -> None:
    frame = LENGTH.pack(1) + b"x"
    ended = subprocess.run([sys.executable, "-c", SERVE], input=frame, timeout=60, check=False)
    assert ended.returncode == -signal.SIGXCPU
