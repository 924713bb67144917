"""A function for processes that compute: it never ends for one number, and ends its process for another.

It imports next to nothing: what a new process imports for its first call is part of that call's time.
"""

from __future__ import annotations

import os


def double(number: int) -> int:
    """Return twice `number`; never for 3, and not for 5."""
    while number == 3:
        pass
    if number == 5:
        os._exit(1)
    return 2 * number
