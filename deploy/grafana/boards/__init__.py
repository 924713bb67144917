"""The nine dashboards, in the order of their links."""

from __future__ import annotations

from grafana.boards import (
    batch_processor,
    email,
    gateway,
    messaging,
    overview,
    postgres_and_cache,
    realtime,
    runtime_and_pools,
    stock_data,
)
from grafana.panels import Dashboard

BOARDS: tuple[Dashboard, ...] = (
    overview.BOARD,
    gateway.BOARD,
    stock_data.BOARD,
    email.BOARD,
    batch_processor.BOARD,
    messaging.BOARD,
    realtime.BOARD,
    runtime_and_pools.BOARD,
    postgres_and_cache.BOARD,
)
