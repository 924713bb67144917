"""Common ticks for the periodic work of a process.

Waking a process costs more than the little work that it then does: work that is due about once a second is
done at the same moment, in one wake.
"""

from __future__ import annotations

import asyncio


async def following(every_s: float, *, behind_s: float = 0) -> None:
    """Wait for the next tick: the loop's time is then `behind_s` after a multiple of `every_s` seconds."""
    await asyncio.sleep(due_in_s(every_s, behind_s=behind_s))


def due_in_s(every_s: float, *, behind_s: float = 0) -> float:
    """Return the seconds until the next tick; never 0."""
    # In whole milliseconds, as the loop counts them: fractions of seconds would differ by rounding.
    every_ms = round(every_s * 1000)
    now_ms = round((asyncio.get_running_loop().time() - behind_s) * 1000)
    return (every_ms - now_ms % every_ms) / 1000
