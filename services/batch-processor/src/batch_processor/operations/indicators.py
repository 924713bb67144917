"""Technical indicators by name, such as `sma:20`. They are computed in a process of their own."""

from __future__ import annotations

from collections.abc import Sequence


def compute(closes: Sequence[float], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Return each indicator of `names` (`sma:20`, `rsi:14`) for each close; None before enough closes."""
    # Imported here, because numpy takes 11 MiB of a process, and few processes compute.
    import numpy as np

    from batch_processor.operations.indicator_series import FUNCTIONS

    series = np.asarray(closes, dtype=np.float64)
    return {
        name: [
            None if np.isnan(value) else round(float(value), 6) for value in FUNCTIONS[kind](series, period)
        ]
        for name, kind, period in map(_split, names)
    }


def lookback(name: str) -> int:
    """Return how many earlier closes the first value needs to be right."""
    _, kind, period = _split(name)
    # Wilder's average never forgets: after ten periods less than 0.01% of the start is left.
    return period if kind == "sma" else 10 * period


def _split(name: str) -> tuple[str, str, int]:
    kind, _, period = name.partition(":")
    return name, kind, int(period)
