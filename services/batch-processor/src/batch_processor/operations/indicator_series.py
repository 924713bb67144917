"""The series of technical indicators over closes, vectorised with numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Series: TypeAlias = NDArray[np.float64]


def sma(closes: Series, period: int) -> Series:
    """Return the simple moving average: the mean of the last `period` closes, nan before."""
    result = np.full(len(closes), np.nan)
    if len(closes) >= period:
        windows = np.lib.stride_tricks.sliding_window_view(closes, period)
        result[period - 1 :] = windows.mean(axis=1)
    return result


def rsi(closes: Series, period: int) -> Series:
    """Return Wilder's relative strength index, 0 to 100 (50 without a move); nan for the first `period`."""
    result = np.full(len(closes), np.nan)
    if len(closes) > period:
        moves = np.diff(closes)
        gain = _wilder(np.maximum(moves, 0), period)
        loss = _wilder(np.maximum(-moves, 0), period)
        total = gain + loss
        result[period:] = np.where(total > 0, 100 * gain / np.where(total > 0, total, 1), 50.0)
    return result


def _wilder(values: Series, period: int) -> Series:
    """Return Wilder's moving average: the mean of the first `period`, then 1/period of each new value.

    The recursion y = a·y + b·x is summed in blocks, in which the powers of a stay far from underflow.
    """
    decay, block = 1 - 1 / period, 64
    smoothed = np.empty(len(values) - period + 1)
    smoothed[0] = values[:period].mean()
    rest, powers = values[period:] / period, decay ** np.arange(1, block + 1)
    for start in range(0, len(rest), block):
        part = rest[start : start + block]
        scale = powers[: len(part)]
        smoothed[start + 1 : start + 1 + len(part)] = scale * (smoothed[start] + np.cumsum(part / scale))
    return smoothed


FUNCTIONS: Mapping[str, Callable[[Series, int], Series]] = {"rsi": rsi, "sma": sma}
