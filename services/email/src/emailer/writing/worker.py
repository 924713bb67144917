"""A process that builds mails and converts HTML: `python -m emailer.writing.worker`.

A frame begins with a line of JSON. `{"html": …}` is answered with its text as JSON. A letter, followed by the
contents of its files, is answered with the mail, preceded by the digest of its body if that is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from contracts.parsed_addresses import ParsedAddress
from emailer import plain_text
from emailer.mails.letters import File, Letter
from emailer.workers import frames
from emailer.writing import digests, rendering

# This process starts when somebody's mail waits for it, at low priority. So it imports nothing that it does
# not need: pydantic alone would make it start four times as slowly.

# Enough for a few copies of a mail with 20 MB of files.
MEMORY_BYTES = 384 << 20
# Seconds of a processor for one mail.
CPU_S = 30


def request_to_read(html: str) -> Iterator[bytes]:
    """Return the pieces of a frame that asks for the text of `html`."""
    yield json.dumps({"html": html}).encode() + b"\n"


def request_to_write(
    letter: Letter, *, identity: str, at: datetime, with_digest: bool = False
) -> Iterator[bytes]:
    """Return the pieces of a frame that asks for a mail, as `rendering.render` makes it."""
    head = {
        "letter": {
            "sender": _pair(letter.sender),
            "to": [_pair(one) for one in letter.to],
            "cc": [_pair(one) for one in letter.cc],
            "reply_to": [_pair(one) for one in letter.reply_to],
            "headers": letter.headers,
            "subject": letter.subject,
            "text": letter.text,
            "html": letter.html,
        },
        "files": [
            {"filename": file.filename, "content_type": file.content_type, "content_id": file.content_id}
            for file in letter.files
        ],
        "sizes": [len(file.content) for file in letter.files],
        "identity": identity,
        "at": at.isoformat(),
        "with_digest": with_digest,
    }
    yield json.dumps(head).encode() + b"\n"
    yield from (file.content for file in letter.files)


def answer(frame: bytes) -> Iterable[bytes]:
    """Return the pieces of the answer to a frame."""
    end = frame.index(b"\n") + 1
    head: dict[str, Any] = json.loads(frame[:end])
    if "html" in head:
        return [json.dumps(plain_text.from_html(head["html"])).encode()]
    files = list[File]()
    for described, size in zip(head["files"], head["sizes"], strict=True):
        files.append(File(**described, content=frame[end : end + size]))
        end += size
    at = datetime.fromisoformat(head["at"])
    content = rendering.render(_letter(head["letter"], files), identity=head["identity"], at=at)
    return [digests.body_digest(content), content] if head["with_digest"] else [content]


def _pair(address: ParsedAddress) -> tuple[str, str]:
    return address.name, address.address


def _letter(described: dict[str, Any], files: Sequence[File]) -> Letter:
    return Letter(
        sender=ParsedAddress(*described["sender"]),
        to=tuple(ParsedAddress(*pair) for pair in described["to"]),
        cc=tuple(ParsedAddress(*pair) for pair in described["cc"]),
        reply_to=tuple(ParsedAddress(*pair) for pair in described["reply_to"]),
        headers=tuple((name, value) for name, value in described["headers"]),
        subject=described["subject"],
        text=described["text"],
        html=described["html"],
        files=tuple(files),
    )


if __name__ == "__main__":
    frames.serve(answer, memory_bytes=MEMORY_BYTES, cpu_s=CPU_S)
