"""Checks before anything is installed: `python3 -m native.before`. Needs only the standard library."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from native.directories import MARKER
from native.errors import NativeError
from native.ports import check_free
from native.settings import NativeSettings, run_directory

_REPOSITORY = Path(__file__).resolve().parents[2]
_DOTENV = _REPOSITORY / ".env"


def main() -> int:
    """Check the settings and the ports; return the exit code.

    Where the packages are installed, the runner reports wrong ports, together with all other wrong settings.
    Ports used by this stack itself are no problem, nor are those of processes that outlived a killed runner:
    the next runner ends these before it checks the ports.
    """
    try:
        root = run_directory(os.environ, _DOTENV)
        settings = NativeSettings.load(os.environ, _DOTENV)
        if settings.problems and (_REPOSITORY / ".venv/bin/python").exists():
            return 0
        settings.require_ports()
        if not _runs(root / "lock") and not _has_leftovers(root):
            check_free(settings.ports)
    except NativeError as error:
        sys.stderr.write(f"\n{error}\n")
        return 2
    return 0


def _runs(lock: Path) -> bool:
    """Return whether a runner holds the run directory; the new runner reports that by itself."""
    try:
        with lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _has_leftovers(root: Path) -> bool:
    """Return whether a process of an earlier runner of this run directory is still alive or ending."""
    mark = f"{MARKER}={root.resolve()}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environment.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


if __name__ == "__main__":
    sys.exit(main())
