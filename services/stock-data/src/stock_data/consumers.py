"""The message edge: which request is answered by what."""

from __future__ import annotations

from collections.abc import Mapping

from chassis.broker.answering import Answer
from contracts.message import Request
from contracts.stocks import GetBars, GetQuotes, SearchSymbols
from stock_data.market import Market


def answers(market: Market) -> Mapping[type[Request], Answer]:
    """The table of requests."""
    return {GetQuotes: market.quotes, GetBars: market.bars, SearchSymbols: market.search}
