"""A process that builds mails and converts HTML: `python -m emailer.writing.worker`.

A frame begins with a line of JSON. `{"html": …}` is answered with its text as JSON. A letter, followed by the
contents of its files, is answered with the mail, preceded by the digest of its body if that is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from emailer import plain_text
from emailer.mails.letters import File, Letter
from emailer.workers import frames
from emailer.writing import dkim, rendering

# Enough for a few copies of a mail with 20 MB of files.
MEMORY_BYTES = 384 << 20

_LETTER = TypeAdapter(Letter)


def request_to_read(html: str) -> Iterator[bytes]:
    """Return the pieces of a frame that asks for the text of `html`."""
    yield json.dumps({"html": html}).encode() + b"\n"


def request_to_write(
    letter: Letter, *, identity: str, at: datetime, with_digest: bool = False
) -> Iterator[bytes]:
    """Return the pieces of a frame that asks for a mail, as `rendering.render` makes it."""
    files = [file.content for file in letter.files]
    bare = replace(letter, files=tuple(replace(file, content=b"") for file in letter.files))
    head = {
        "letter": _LETTER.dump_python(bare, mode="json"),
        "sizes": [len(content) for content in files],
        "identity": identity,
        "at": at.isoformat(),
        "with_digest": with_digest,
    }
    yield json.dumps(head).encode() + b"\n"
    yield from files


def answer(frame: bytes) -> Iterable[bytes]:
    """Return the pieces of the answer to a frame."""
    end = frame.index(b"\n") + 1
    head: dict[str, Any] = json.loads(frame[:end])
    if "html" in head:
        return [json.dumps(plain_text.from_html(head["html"])).encode()]
    letter, files = _LETTER.validate_python(head["letter"]), list[File]()
    for file, size in zip(letter.files, head["sizes"], strict=True):
        files.append(replace(file, content=frame[end : end + size]))
        end += size
    at = datetime.fromisoformat(head["at"])
    content = rendering.render(replace(letter, files=tuple(files)), identity=head["identity"], at=at)
    return [dkim.body_digest(content), content] if head["with_digest"] else [content]


if __name__ == "__main__":
    frames.serve(answer, memory_bytes=MEMORY_BYTES)
