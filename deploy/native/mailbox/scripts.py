"""Scripts: the mailbox's answers to selected recipients, set on its page or over its API."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

Action = Literal["fail", "defer", "drop", "slow"]
Stage = Literal["rcpt", "data"]

MOST_SCRIPTS = 100
_LONGEST_WAIT_S = 60
_LONGEST_TEXT = 200
_LONGEST_ADDRESS = 320
_TEXTS: dict[Action, str] = {
    "fail": "5.0.0 Scripted: refused",
    "defer": "4.0.0 Scripted: not now",
    "drop": "",
    "slow": "",
}
_CODES = {"fail": range(500, 600), "defer": range(400, 500)}


@dataclass
class Script:
    """An answer to recipients that match `to` (`*` and `?` stand for anything), for the next `times` mails.

    `fail` and `defer` answer with `code` and `text`, `drop` cuts the connection, each at `stage`: at RCPT, or
    after the message (which `drop` still stores). `slow` answers RCPT after `seconds`.
    """

    to: str
    action: Action
    stage: Stage = "rcpt"
    code: int = 0
    text: str = ""
    seconds: float = 0
    times: int | None = None

    def __post_init__(self) -> None:
        if self.action not in get_args(Action) or self.stage not in get_args(Stage):
            raise ValueError("action must be fail, defer, drop or slow, and stage rcpt or data")
        if not _is_line(self.to, _LONGEST_ADDRESS) or not self.to:
            raise ValueError("to must be a recipient, or a pattern such as *@example.com")
        if type(self.code) is not int or not isinstance(self.times, int | None):
            raise ValueError("code and times must be whole numbers")
        codes = _CODES.get(self.action)
        self.code = self.code or (codes[50] if codes else 0)
        if codes and self.code not in codes:
            raise ValueError(f"code must be {codes[0]} to {codes[-1]} for {self.action}")
        if not 0 <= self.seconds <= _LONGEST_WAIT_S or (self.times is not None and self.times < 1):
            raise ValueError(f"seconds must be 0 to {_LONGEST_WAIT_S}, and times at least 1")
        self.text = self.text or _TEXTS[self.action]
        if not _is_line(self.text, _LONGEST_TEXT):
            raise ValueError(f"text must be one line of at most {_LONGEST_TEXT} characters")

    @property
    def reply(self) -> str:
        """The reply line."""
        return f"{self.code} {self.text}"


def _is_line(found: Any, longest: int) -> bool:
    # This also excludes lone surrogates, which could neither be sent nor shown: they are not printable.
    return isinstance(found, str) and len(found) <= longest and found.isprintable()


@dataclass
class Scripts:
    """All scripts; the first that matches applies, and is removed after its last use."""

    items: list[Script] = field(default_factory=list)

    def replace(self, documents: Any) -> None:
        """Replace all scripts by those that `documents` describe. Raise `ValueError`."""
        if not isinstance(documents, list) or len(documents) > MOST_SCRIPTS:
            raise ValueError(f"expected a list of at most {MOST_SCRIPTS} scripts")
        try:
            self.items = [Script(**document) for document in documents]
        except TypeError as error:
            raise ValueError(f"fields are to, action, stage, code, text, seconds, times: {error}") from None

    def documents(self) -> list[dict[str, Any]]:
        """Return the scripts as JSON objects."""
        return [asdict(script) for script in self.items]

    def take(self, address: str) -> Script | None:
        """Return the script for one mail to `address`, and count its use."""
        matching = (one for one in self.items if fnmatchcase(address.lower(), one.to.lower()))
        script = next(matching, None)
        if script is None or script.times is None:
            return script
        script.times -= 1
        if not script.times:
            self.items.remove(script)
        return script
