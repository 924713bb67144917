from __future__ import annotations

import pytest

from native.mailbox.messages import Store
from native.mailbox.receiver import Receiver


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("reject550@example.org", ("reject", 550)),
        ("defer451+tag@example.org", ("defer", 451)),
        ("DataReject554@example.org", ("datareject", 554)),
        ("slow3@example.org", ("slow", 3)),
        ("greylist@example.org", ("greylist", 0)),
        ("dropafter@example.org", ("dropafter", 0)),
        ("ada@example.org", ("", 0)),
        ("rejected550@example.org", ("", 0)),
        ("greylisted@example.org", ("", 0)),
    ],
)
def test_the_local_part_asks_for_the_outcome(address: str, expected: tuple[str, int]) -> None:
    assert Receiver(Store()).script(address) == expected


def test_without_the_script_every_recipient_is_ordinary() -> None:
    assert Receiver(Store(), scripted=False).script("reject550@example.org") == ("", 0)
