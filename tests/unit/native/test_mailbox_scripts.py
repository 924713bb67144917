"""A script answers the mails it is for, as often as it says; an invalid one is refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from native.mailbox.keeping import Folder
from native.mailbox.messages import Received, Store
from native.mailbox.scripts import MOST_SCRIPTS, Scripts


def scripts(*documents: dict[str, Any]) -> Scripts:
    made = Scripts()
    made.replace(list(documents))
    return made


def test_the_first_script_that_matches_counts() -> None:
    made = scripts(
        {"to": "ada@example.com", "action": "defer", "text": "4.7.1 try again in 5 minutes"},
        {"to": "*@example.com", "action": "fail", "code": 554},
    )
    first, second = made.take("Ada@example.com"), made.take("bob@example.com")
    assert first is not None
    assert first.reply == "450 4.7.1 try again in 5 minutes"
    assert second is not None
    assert second.reply == "554 5.0.0 Scripted: refused"
    assert made.take("ada@example.org") is None


def test_a_script_is_gone_after_its_last_time() -> None:
    made = scripts({"to": "*", "action": "drop", "times": 2})
    assert [made.take("a@example.com") is not None for _ in range(3)] == [True, True, False]
    assert made.documents() == []


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"to": "*", "action": "explode"}, "action must be"),
        ({"to": "*", "action": "fail", "stage": "quit"}, "stage rcpt or data"),
        ({"to": "", "action": "fail"}, "to must be"),
        ({"to": "*", "action": "fail", "code": 450}, "code must be 500 to 599 for fail"),
        ({"to": "*", "action": "slow", "seconds": 61}, "seconds must be"),
        ({"to": "*", "action": "fail", "times": 0}, "times at least 1"),
        ({"to": "*", "action": "fail", "text": "a\r\nb"}, "one line"),
        ({"to": "*", "action": "fail", "text": {"a": 1}}, "one line"),
        ({"to": "*", "action": "fail", "times": 1.5}, "whole numbers"),
        ({"to": "*", "action": "fail", "code": 550.0}, "whole numbers"),
        ({"to": "a\ud800", "action": "fail"}, "to must be"),
        ({"to": "*a" * 200, "action": "fail"}, "to must be"),
        ({"to": "*", "action": "fail", "wrong": 1}, "fields are to, action"),
        ({"action": "fail"}, "fields are to, action"),
    ],
)
def test_an_invalid_script_is_refused_and_the_others_stay(document: Any, reason: str) -> None:
    made = scripts({"to": "*", "action": "fail"})
    with pytest.raises(ValueError, match=reason):
        made.replace([document])
    assert len(made.items) == 1


def test_there_is_a_bounded_number_of_scripts() -> None:
    with pytest.raises(ValueError, match="at most 100"):
        scripts(*[{"to": "*", "action": "fail"}] * (MOST_SCRIPTS + 1))


def test_messages_are_restored_in_order_without_those_that_were_deleted(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    store = Store(most=3, forgotten=folder.remove)
    raws = [b"Subject: %d\r\n\r\n\xff\0\n" % number for number in range(5)]
    for raw in raws:
        message = Received(raw, "a@example.com", ("b@example.com", "c@example.com"))
        folder.write(message)
        store.add(message)
    store.remove([list(store)[1].id])
    (tmp_path / "broken.mail").write_bytes(b"not JSON\n")
    (tmp_path / "1-killed.part").write_bytes(b"half of a message")
    found = Folder(tmp_path).load()
    assert list(tmp_path.glob("*.part")) == []
    assert [message.raw for message in found] == [raws[2], raws[4]]
    assert found[1] == next(iter(store))
