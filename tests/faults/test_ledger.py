"""The books notice every loss, copy and contradiction that must never happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.ledger import DONE, ENDS, Ledger


def one(*, effects: int = 1) -> Ledger:
    ledger = Ledger()
    ledger.plan("a", "mail", effects=effects)
    return ledger


def test_work_that_is_done_once_balances() -> None:
    ledger = one()
    ledger.accept("a", "1")
    ledger.end("1", "delivered")
    ledger.arrive("a", ["<1@x>"])
    balance = ledger.balance()
    assert (balance.accepted, balance.done, balance.lost, balance.complaints) == (1, 1, 0, ())


def test_a_promise_without_an_end_is_lost() -> None:
    ledger = one()
    ledger.accept("a", "1")
    assert ledger.open_ids() == ["1"]
    assert ledger.balance().lost == 1
    assert "came to no end" in ledger.balance().complaints[0]


def test_work_that_is_done_without_an_effect_is_lost() -> None:
    ledger = one(effects=2)
    ledger.accept("a", "1")
    ledger.end("1", "completed")
    ledger.arrive("a", ["0"])
    assert ledger.balance().lost == 1


def test_work_that_is_given_up_is_not_lost() -> None:
    ledger = one()
    ledger.accept("a", "1")
    ledger.end("1", "failed")
    balance = ledger.balance()
    assert (balance.given_up, balance.lost, balance.complaints) == (1, 0, ())


def test_a_second_copy_is_a_complaint_unless_a_doubt_explains_it() -> None:
    ledger = one()
    ledger.accept("a", "1")
    ledger.end("1", "delivered")
    ledger.arrive("a", ["<1@x>", "<1@x>"])
    assert "1 duplicate effects, 0 of them explained" in ledger.balance().complaints[0]
    ledger.end("1", "delivered", doubts=1)
    balance = ledger.balance()
    assert (balance.duplicates, balance.explained, balance.complaints) == (1, 1, ())


def test_two_messages_for_one_promise_are_not_copies_of_each_other() -> None:
    ledger = one()
    ledger.accept("a", "1")
    ledger.end("1", "delivered", doubts=5)
    ledger.arrive("a", ["<1@x>", "<2@x>"])
    assert "2 different effects instead of 1" in ledger.balance().complaints[0]


def test_two_ends_of_one_promise_are_a_complaint() -> None:
    ledger = one()
    ledger.accept("a", "1")
    ledger.end("1", "delivered")
    ledger.end("1", "failed")
    ledger.arrive("a", ["<1@x>"])
    assert any("ended more than once" in line for line in ledger.balance().complaints)


def test_a_final_state_that_is_left_again_is_a_complaint() -> None:
    ledger = one()
    ledger.accept("a", "1")
    ledger.end("1", "delivered")
    ledger.arrive("a", ["<1@x>"])
    assert ledger.ended_ids() == ["1"]
    ledger.look_again("1", "delivered")
    assert ledger.balance().complaints == ()
    ledger.look_again("1", "sending")
    assert any("ended more than once" in line for line in ledger.balance().complaints)


def test_two_ids_for_one_idempotency_key_are_a_complaint() -> None:
    ledger = one()
    for id_ in ("1", "1", "2"):
        ledger.accept("a", id_)
    assert any("accepted under 2 ids" in line for line in ledger.balance().complaints)


def test_an_end_without_a_promise_is_a_complaint() -> None:
    ledger = one()
    ledger.arrive("a", ["<1@x>"])
    assert "happened without a promise" in ledger.balance().complaints[0]


def test_an_intermediate_state_is_no_end() -> None:
    ledger = one()
    ledger.accept("a", "1")
    with pytest.raises(ValueError, match="is no end"):
        ledger.end("1", "queued")


@given(
    st.lists(
        st.tuples(st.booleans(), st.none() | st.sampled_from(sorted(ENDS)), st.integers(0, 3)), max_size=30
    )
)
def test_every_promise_is_done_given_up_or_lost(fates: list[tuple[bool, str | None, int]]) -> None:
    ledger = Ledger()
    for number, (is_accepted, end, copies) in enumerate(fates):
        key = f"k{number}"
        ledger.plan(key, "mail")
        ledger.arrive(key, ["m"] * copies)
        if is_accepted:
            ledger.accept(key, str(number))
            if end:
                ledger.end(str(number), end)
    balance = ledger.balance()
    accepted = [(end, copies) for is_accepted, end, copies in fates if is_accepted]
    assert balance.accepted == len(accepted)
    assert balance.lost == sum(end is None or (end in DONE and not copies) for end, copies in accepted)
    assert balance.done + balance.given_up == sum(end is not None for end, _ in accepted)
    assert balance.duplicates == sum(max(0, copies - 1) for _, copies in accepted)
