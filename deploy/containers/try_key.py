"""Prints how the gateway answers to an API key, waiting for it a while: `try_key.py <url> <key file>`."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_PATIENCE_S = 20


def answer(url: str, key: str) -> str:
    """Return the status of `GET /v1/me`, or why there is none."""
    request = urllib.request.Request(f"{url}/v1/me", headers={"authorization": f"Bearer {key}"})  # noqa: S310
    # It is a neighbour: the way to it leads through no proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as found:
            return str(found.status)
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError as error:
        return str(error)


def main() -> None:
    """Ask until the gateway answers, and print what it says."""
    key = Path(sys.argv[2]).read_text(encoding="utf-8").strip()
    deadline = time.monotonic() + _PATIENCE_S
    while (said := answer(sys.argv[1], key)) != "200" and not said.startswith("HTTP"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.3)
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
