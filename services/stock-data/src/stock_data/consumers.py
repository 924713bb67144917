"""The message edge: the handler of each request."""

from __future__ import annotations

from collections.abc import Mapping

from chassis.broker.answering import Answer
from contracts.alerts import CreateAlert, DeleteAlert, GetAlert, ListAlerts, ListFirings
from contracts.message import Request
from contracts.stocks import BackfillBars, GetBars, GetQuotes, SearchSymbols
from stock_data.alerts.answers import AlertAnswers
from stock_data.market import Market


def answers(market: Market, alerts: AlertAnswers) -> Mapping[type[Request], Answer]:
    """Return the table of requests and their handlers."""
    return {
        GetQuotes: market.quotes,
        GetBars: market.bars_document,
        BackfillBars: market.backfill,
        SearchSymbols: market.search,
        CreateAlert: alerts.create,
        GetAlert: alerts.get,
        ListAlerts: alerts.list,
        DeleteAlert: alerts.delete,
        ListFirings: alerts.firings,
    }
