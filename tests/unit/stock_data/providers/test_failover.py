"""Several providers: which one answers, and when the next is asked."""

from __future__ import annotations

import pytest

from chassis.deadlines import Deadline
from stock_data.errors import (
    AuthFailed,
    BadData,
    Blocked,
    InvalidCursor,
    NotEntitled,
    ProviderFailure,
    QuotaExceeded,
    UnknownSymbol,
    UpstreamDown,
)
from stock_data.providers.failover import Failover
from stock_data.providers.guarded import Guarded
from stock_data.providers.provider import DailyBarsQuery
from support.doubles.provider import Scripted

QUERY = DailyBarsQuery("ACME", "raw", 10)


def soon() -> Deadline:
    return Deadline.after(5)


async def test_the_first_provider_that_answers_counts() -> None:
    first, second = Scripted("first"), Scripted("second")
    found = await Failover([first, second]).quotes(["A"], soon())
    assert (found.quotes["A"].source, found.quotes["A"].warnings) == ("first", [])
    assert second.asked == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (QuotaExceeded("x", retry_after_s=5), "quota"),
        (UpstreamDown("x"), "upstream_down"),
        (Blocked("x"), "blocked"),
        (BadData("x"), "bad_data"),
        (AuthFailed("x"), "auth"),
        (NotEntitled("x"), "entitlement"),
    ],
)
async def test_a_failure_leads_to_the_next_provider_with_a_warning(error: ProviderFailure, kind: str) -> None:
    answered = await Failover([Scripted("first", error), Scripted("second")]).bars(QUERY, soon())
    assert (answered.source, answered.warnings) == ("second", [f"first: {kind}: x"])


async def test_a_provider_without_bars_in_the_range_is_passed_over_for_one_that_has_some() -> None:
    first, second = Scripted("first"), Scripted("second", bars=1)
    answered = await Failover([first, second]).bars(QUERY, soon())
    assert (answered.source, len(answered.value.data), answered.warnings) == ("second", 1, [])


@pytest.mark.parametrize("error", [UpstreamDown("x"), UnknownSymbol("ACME"), None])
async def test_when_no_provider_has_bars_the_answer_is_an_empty_page_of_the_first(
    error: ProviderFailure | UnknownSymbol | None,
) -> None:
    first, second = Scripted("first"), Scripted("second", error)
    answered = await Failover([first, second]).bars(QUERY, soon())
    assert (answered.source, answered.value.data) == ("first", [])
    assert answered.warnings == (["second: upstream_down: x"] if isinstance(error, UpstreamDown) else [])


async def test_an_unknown_symbol_is_final() -> None:
    second = Scripted("second")
    with pytest.raises(UnknownSymbol):
        await Failover([Scripted("first", UnknownSymbol("ACME")), second]).bars(QUERY, soon())
    assert second.asked == 0


async def test_a_symbol_unknown_to_the_next_provider_may_be_known_to_the_one_that_failed() -> None:
    first, second = Scripted("first", UpstreamDown("x")), Scripted("second", UnknownSymbol("ACME"))
    with pytest.raises(UpstreamDown):
        await Failover([first, second]).bars(QUERY, soon())
    found = await Failover([first, Scripted("second", knows=["IBM"])]).quotes(["ACME", "IBM"], soon())
    assert (set(found.quotes), found.errors) == ({"IBM"}, {"ACME": first.error})


async def test_only_the_symbols_that_failed_go_to_the_next_provider() -> None:
    bad = BadData("x")
    first, second = (
        Scripted("first", knows=["A", "B"], bad={"C": bad, "D": bad}),
        Scripted("second", knows=["C"]),
    )
    found = await Failover([first, second]).quotes(["A", "B", "C", "D", "E"], soon())
    assert {s: (q.source, q.warnings) for s, q in found.quotes.items()} == {
        "A": ("first", []),
        "B": ("first", []),
        "C": ("second", ["first: bad_data: x"]),
    }
    assert found.errors == {"D": bad}
    assert second.symbols == ["C", "D"]


async def test_when_all_fail_the_last_failure_is_the_answer() -> None:
    with pytest.raises(BadData):
        await Failover([Scripted("first", UpstreamDown()), Scripted("second", BadData())]).bars(QUERY, soon())


async def test_a_slow_provider_leaves_the_next_one_time() -> None:
    deadline = Deadline.after(0.2)
    slow = Guarded(Scripted("first", hangs=True))
    answered = await Failover([slow, Scripted("second")]).bars(QUERY, deadline)
    assert answered.warnings == ["first: upstream_down: first did not answer in time."]
    assert deadline.remaining_s() > 0


async def test_a_further_page_comes_from_the_provider_of_the_first_or_not_at_all() -> None:
    first, second = Scripted("first"), Scripted("second", UpstreamDown())
    with pytest.raises(UpstreamDown):
        await Failover([first, second]).bars(QUERY, soon(), provider="second")
    with pytest.raises(InvalidCursor):
        await Failover([first, second]).bars(QUERY, soon(), provider="third")
    assert first.asked == 0


async def test_search_fails_over_too() -> None:
    answered = await Failover([Scripted("first", NotEntitled()), Scripted("second")]).search("a", 5, soon())
    assert [each.symbol for each in answered.value] == ["SECOND"]
