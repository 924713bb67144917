"""Failures of Alpaca: refusals, outages, quotas, and answers that are late."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc

import pytest
from prometheus_client import REGISTRY

from chassis import metrics
from chassis.deadlines import Deadline
from stock_data.errors import (
    AuthFailed,
    BadData,
    Blocked,
    NotEntitled,
    ProviderFailure,
    QuotaExceeded,
    UpstreamDown,
)
from stock_data.providers.alpaca import AlpacaProvider
from support.alpaca_answers import QUERY, bars_of, provider_of, soon
from support.doubles import alpaca as double
from support.doubles import upstream as upstreams
from support.doubles.alpaca import AlpacaDouble
from support.doubles.upstream import UpstreamAnswer, answer_json


async def test_wrong_credentials_are_an_auth_failure_and_asked_once(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, secret="wrong")
    with pytest.raises(AuthFailed, match="forbidden"):
        await provider.quotes(["AAPL"], soon())
    await provider.close()
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (double.FORBIDDEN, AuthFailed),
        (answer_json({"message": "unauthorized"}, 401), AuthFailed),
        (double.NO_SUBSCRIPTION, NotEntitled),
        (upstreams.PAGE, Blocked),
        (upstreams.PAGE_AS_JSON, Blocked),
        (UpstreamAnswer(b"<html>Access denied</html>", 403, {"content-type": "text/html"}), Blocked),
        (upstreams.REDIRECT, Blocked),
        (upstreams.TRUNCATED, BadData),
        (UpstreamAnswer(b"", 200, {"content-type": "application/json"}), BadData),
        (answer_json([]), BadData),
        (answer_json("bars"), BadData),
        (answer_json({"bars": {"AAPL": []}, "symbol": "AAPL"}), BadData),
        (bars_of(double.bar("2024-01-02", c="a lot")), BadData),
        (bars_of(double.bar("2024-01-02", v=-1)), BadData),
        (bars_of(double.bar("2024-01-02", l=None)), BadData),
        (bars_of(double.bar("2024-01-02", h=1)), BadData),
        (bars_of(double.bar("2024-13-02")), BadData),
        (
            UpstreamAnswer(
                b'{"bars":[{"t":"2024-01-02T05:00:00Z","o":NaN,"h":1,"l":1,"c":1,"v":1}],"symbol":"AAPL"}'
            ),
            BadData,
        ),
        (
            bars_of(double.bar("2024-01-03"), double.bar("2024-01-02")),
            BadData,
        ),
        (bars_of(double.bar("2024-01-02"), double.bar("2024-01-02")), BadData),
        (answer_json({"message": "invalid limit"}, 422), BadData),
        (UpstreamAnswer(b"[" * 100_000, 200, {"content-type": "application/json"}), BadData),
        (upstreams.ENDLESS, BadData),
    ],
)
async def test_a_failure_that_a_retry_cannot_help_is_asked_for_once(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: UpstreamAnswer, failure: type[ProviderFailure]
) -> None:
    upstream.always = answer
    with pytest.raises(failure):
        await provider.bars(QUERY, soon())
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [upstreams.BROKEN, upstreams.UNAVAILABLE, upstreams.RESET, upstreams.CUT],
    ids=["500", "503", "reset", "cut"],
)
async def test_an_outage_is_tried_three_times(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: UpstreamAnswer
) -> None:
    upstream.always = answer
    with pytest.raises(UpstreamDown):
        await provider.bars(QUERY, soon())
    assert len(upstream.seen) == 3


@pytest.mark.parametrize(
    "answer", [upstreams.BROKEN, upstreams.RESET, upstreams.CUT], ids=["500", "reset", "cut"]
)
async def test_a_short_outage_is_not_noticed(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: UpstreamAnswer
) -> None:
    upstream.script += [answer, answer]
    assert len((await provider.bars(QUERY, soon())).data) == 10


async def test_a_used_up_quota_says_when_it_is_filled_again(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = double.too_many(20)
    with pytest.raises(QuotaExceeded, match="too many requests") as caught:
        await provider.bars(QUERY, soon())
    assert caught.value.retry_after_s == pytest.approx(20, abs=5)
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("headers", [{}, {"x_ratelimit_reset": "soon"}, {"x_ratelimit_reset": "0"}])
async def test_a_quota_without_a_sensible_reset_has_one_all_the_same(
    provider: AlpacaProvider, upstream: AlpacaDouble, headers: dict[str, str]
) -> None:
    upstream.always = answer_json({"message": "too many requests."}, 429, **headers)
    with pytest.raises(QuotaExceeded) as caught:
        await provider.bars(QUERY, soon())
    assert caught.value.retry_after_s is not None
    assert 1 <= caught.value.retry_after_s <= 30


async def test_the_reset_of_a_quota_is_also_read_from_retry_after(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = answer_json({"error": "slow down"}, 429, retry_after="12")
    with pytest.raises(QuotaExceeded, match="slow down") as caught:
        await provider.bars(QUERY, soon())
    assert caught.value.retry_after_s == 12


async def test_a_slow_answer_is_an_outage_within_the_callers_deadline(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, timeout_s=30)
    upstream.always = UpstreamAnswer(b"{}", delay_s=60)
    deadline = Deadline.after(0.3)
    with pytest.raises(UpstreamDown, match="in time"):
        await provider.bars(QUERY, deadline)
    await provider.close()
    assert len(upstream.seen) == 1


async def test_one_slow_attempt_is_tried_again(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, timeout_s=0.2)
    upstream.script.append(UpstreamAnswer(b"{}", delay_s=60))
    assert len((await provider.bars(QUERY, soon())).data) == 10
    await provider.close()


async def test_a_refused_connection_is_an_outage() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        provider = provider_of(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UpstreamDown):
            await provider.quotes(["AAPL"], soon())
        await provider.close()


@pytest.mark.parametrize(("said", "shown"), [("187", 187), ("many", 187), ("0", 0), ("9" * 5000, 187)])
async def test_the_remaining_quota_is_measured_as_the_upstream_reports_it(
    provider: AlpacaProvider, upstream: AlpacaDouble, said: str, shown: int
) -> None:
    upstream.script.append(answer_json({"AAPL": double.snapshot(11)}, x_ratelimit_remaining=said))
    metrics.PROVIDER_QUOTA.labels("alpaca").set(187)
    await provider.quotes(["AAPL"], soon())
    assert REGISTRY.get_sample_value("tickwire_provider_quota_remaining", {"provider": "alpaca"}) == shown


def _packed(body: bytes, *, coding: str = "gzip", most: int | None = None) -> UpstreamAnswer:
    headers = {"content-type": "application/json", "content-encoding": coding}
    return UpstreamAnswer(gzip.compress(body)[:most], 200, headers)


async def test_an_answer_may_be_packed(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.always = _packed(json.dumps({"AAPL": double.snapshot(11)}).encode())
    upstream.actions_answer = _packed(b'{"corporate_actions":{}}')
    assert (await provider.quotes(["AAPL"], soon())).quotes["AAPL"].price == 11
    assert upstream.seen[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "answer",
    [
        _packed(b"[" + b" " * (64 << 20) + b"]"),
        _packed(bars_of().body, most=-12),
        _packed(bars_of().body, coding="br"),
        UpstreamAnswer(bars_of().body, 200, {"content-type": "application/json", "content-encoding": "gzip"}),
    ],
    ids=["bomb", "cut", "unknown", "not packed"],
)
async def test_a_packed_answer_is_unpacked_no_further_than_an_answer_may_be_long(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: UpstreamAnswer
) -> None:
    upstream.always = answer
    tracemalloc.start()
    with pytest.raises(BadData):
        await provider.bars(QUERY, soon())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 30 << 20


async def test_an_answer_that_is_too_long_is_bad_data_and_not_read_to_its_end(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = UpstreamAnswer(b"[" + b" " * (80 << 20) + b"]")
    with pytest.raises(BadData, match="longer than 8388608 bytes"):
        await provider.bars(QUERY, soon())
