"""The processor time of work that is bounded in itself: a busy machine makes no difference to it."""

from __future__ import annotations

import time
from collections.abc import Callable


def processor_s(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that `work` takes."""
    before = time.process_time()
    work()
    return time.process_time() - before
