"""The metrics as a scraper reads them."""

from __future__ import annotations

from prometheus_client import REGISTRY, exposition
from prometheus_client.openmetrics import exposition as openmetrics


def expose(accept: str) -> tuple[bytes, str]:
    """Return all metrics and their media type: OpenMetrics with exemplars where accepted, else plain text."""
    if "application/openmetrics-text" in accept:
        # All names are plain: with another escaping each character of every series is looked at first.
        text: bytes = openmetrics.generate_latest(  # type: ignore[no-untyped-call]  # their stub
            REGISTRY, escaping=openmetrics.ALLOWUTF8
        )
        return text, openmetrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest(REGISTRY), exposition.CONTENT_TYPE_LATEST
