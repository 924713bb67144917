"""The files that a thing enters on its way through the services, and those that the README names for it."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

REPOSITORY = Path(__file__).parents[2]
SOURCES = {
    str(file.relative_to(source))
    for source in REPOSITORY.glob("services/*/src")
    for file in source.rglob("*.py")
}
FOLDERS = {str(folder) for source in SOURCES for folder in Path(source).parents}
_SOURCE = re.compile(r"/services/[^/]+/src/(.+\.py)$")


def rows() -> list[str]:
    """Return the rows of the two tables: the files that pass things on, and the files that these call."""
    text = (REPOSITORY / "README.md").read_text()
    part = text[text.index("| what | the files that pass it on |") : text.index("</details>")]
    return [line for line in part.splitlines() if line.startswith("| a")]


def resolved(row: str) -> Iterator[tuple[str, str | None]]:
    """Yield each name of a row with its file or folder, None if there is none.

    A name may leave out the folders that it shares with the name before it.
    """
    place = Path()
    for name in re.findall(r"`([^`]+)`", row):
        tried = (str(parent / name) for parent in (Path(), place, *place.parents))
        file = next((one for one in tried if one in SOURCES | FOLDERS), None)
        yield name, file
        if file is not None:
            place = Path(file).parent


def passing(what: str, *parts: str) -> set[str]:
    """Return the files below folders that pass a thing on; those in parentheses do so for others."""
    row = next(row for row in rows() if row.startswith(f"| {what} |"))
    outside = re.sub(r"\([^)]*\)", "", row)
    return {file for _, file in resolved(outside) if file is not None and file.startswith(parts)}


def unnamed(entered: Collection[str], *whats: str) -> list[str]:
    """Return the files that were entered and that the README does not name for any of these things."""
    chosen = [row for row in rows() if row.startswith(tuple(f"| {what} |" for what in ("any", *whats)))]
    named = {file for row in chosen for _, file in resolved(row)}
    return sorted(file for file in entered if not named & {file, *map(str, Path(file).parents)})


@contextmanager
def followed(way: Collection[str]) -> Iterator[set[str]]:
    """Yield the files of which this thread calls functions in the block, from those of `way` on.

    What runs beside the way, as loops that maintain something, is not called from one of its files.
    """
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        file = _source(frame.f_code.co_filename) if event == "call" else None
        if file is None or file in entered or frame.f_code.co_name == "<module>":
            return
        caller: FrameType | None = frame
        while caller is not None and _source(caller.f_code.co_filename) not in way:
            caller = caller.f_back
        if caller is not None:
            entered.add(file)

    sys.setprofile(note)
    try:
        yield entered
    finally:
        sys.setprofile(None)


@cache
def _source(file: str) -> str | None:
    match = _SOURCE.search(file)
    return match[1] if match else None
