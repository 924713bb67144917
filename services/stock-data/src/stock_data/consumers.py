"""The message edge: the handler of each request."""

from __future__ import annotations

from collections.abc import Mapping

from chassis.broker.answering import Answer
from contracts.message import Request
from contracts.stocks import GetBars, GetQuotes, ListInstruments, SearchSymbols
from stock_data.market import Market


def answers(market: Market) -> Mapping[type[Request], Answer]:
    """Return the table of requests and their handlers."""
    return {
        GetQuotes: market.quotes,
        GetBars: market.bars,
        SearchSymbols: market.search,
        ListInstruments: market.instruments,
    }
