"""What can stop a start, told before anything is installed: `python3 -m native.before`. Needs no package."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from native.errors import NativeError
from native.ports import check_free
from native.settings import Settings

_REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """Look at the settings and the ports; return the exit code."""
    root = Path(os.environ.get("NATIVE_RUN_DIR") or _REPOSITORY / ".run")
    try:
        settings = Settings.load(os.environ, _REPOSITORY / ".env")
        if not _runs(root / "lock"):
            check_free(settings.ports)
    except NativeError as error:
        sys.stderr.write(f"\n{error}\n")
        return 2
    return 0


def _runs(lock: Path) -> bool:
    """Return whether a runner has the run directory: it says itself what to do then."""
    try:
        with lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


if __name__ == "__main__":
    sys.exit(main())
