"""The registry: every metric of every service, by one naming convention (base units, bounded labels)."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from chassis.metrics.batches import *  # noqa: F403 - the registry has all of them
from chassis.metrics.email import *  # noqa: F403
from chassis.metrics.gateway import *  # noqa: F403
from chassis.metrics.processes import *  # noqa: F403
from chassis.metrics.processes import (
    BUILD_INFO,
    HANDLE_SECONDS,
    HTTP_SECONDS,
    MESSAGE_AGE,
    RPC_CALL_SECONDS,
    RPC_SERVED_SECONDS,
)
from chassis.metrics.stock_data import *  # noqa: F403

# Metrics with exemplars: their panels show dots that lead to traces.
TRACED = (HTTP_SECONDS, RPC_CALL_SECONDS, RPC_SERVED_SECONDS, HANDLE_SECONDS, MESSAGE_AGE)


def describe_build(distribution: str) -> None:
    """Set `tickwire_build_info` to the running version of `distribution`."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        found = "unknown"
    BUILD_INFO.labels(found, platform.python_version()).set(1)
