"""Turns of the commands that change an installation, or that need it unchanged for a while.

The kernel releases the lock of a command that ends, however that happens.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from upkeep.errors import UpkeepError
from upkeep.installation import Installation


@contextmanager
def changing(installation: Installation) -> Iterator[None]:
    """Change secrets or data during the block. Raise `UpkeepError` while another command has its turn."""
    with _locked(installation, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def reading(installation: Installation) -> Iterator[None]:
    """Wait until no command changes secrets or data, and keep others from it during the block."""
    with _locked(installation, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(installation: Installation, how: int) -> Iterator[None]:
    """Lock the folder of the key file, which every installation has; where nothing was started, nothing."""
    place = installation.key_file.parent
    if not place.is_dir():
        yield
        return
    folder = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, how)
        except BlockingIOError:
            raise UpkeepError(
                "Another command changes this installation, or makes a backup of it: wait until it has ended."
            ) from None
        yield
    finally:
        os.close(folder)
