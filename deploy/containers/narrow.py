"""Reduces the lock file to what one service needs: `python narrow.py requirements.lock tickwire-email`.

After `# via` the lock names the packages that require each package. Following these names from the roots
keeps other services' packages out of an image, with the same versions and hashes. Runs in the build stage,
before anything is installed, hence only with the standard library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Pin:
    """One package of the lock: its name, the names of the packages that require it, its lines."""

    name: str
    wanted_by: frozenset[str]
    text: str


def read(lock: str) -> list[Pin]:
    """Return the pins of a lock file as `uv pip compile` writes it."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    pins = []
    for block in blocks:
        first = _NAME.match(block)
        if first is None:
            continue
        comments = block.partition("# via")[2].replace("#", " ")
        wanted_by = (_NAME.match(line.strip()) for line in comments.splitlines())
        pins.append(Pin(first[0].lower(), frozenset(found[0].lower() for found in wanted_by if found), block))
    return pins


def needed(pins: Iterable[Pin], roots: Iterable[str]) -> list[Pin]:
    """Return the pins of `roots` and of all their dependencies, in the order of the lock."""
    pins, names = list(pins), set(roots)
    while grown := {pin.name for pin in pins if pin.wanted_by & names} - names:
        names |= grown
    return [pin for pin in pins if pin.name in names]


if __name__ == "__main__":
    kept = needed(read(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.argv[2:])
    sys.stdout.write("".join(pin.text for pin in kept))
