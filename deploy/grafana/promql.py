"""The few query shapes that most panels use; `$__rate_interval` is Grafana's."""

from __future__ import annotations

from grafana.panels import Query


def rate(metric: str, *by: str, where: str = "") -> Query:
    """Return the rate of a counter per second, by labels."""
    return Query(f"sum{_by(by)}(rate({metric}{_where(where)}[$__rate_interval]))", _legend(by, "all"))


def total(metric: str, *by: str, where: str = "") -> Query:
    """Return the sum of a gauge over all processes."""
    return Query(f"sum{_by(by)}({metric}{_where(where)})", _legend(by, "all"))


def highest(metric: str, *by: str, where: str = "") -> Query:
    """Return the maximum of a gauge that each process reports for the same thing, where a sum is wrong."""
    return Query(f"max{_by(by)}({metric}{_where(where)})", _legend(by, "highest"))


def lowest(metric: str, *by: str, where: str = "") -> Query:
    """Return the minimum of a gauge."""
    return Query(f"min{_by(by)}({metric}{_where(where)})", _legend(by, "lowest"))


def quantile(q: float, metric: str, *by: str, where: str = "") -> Query:
    """Return a quantile of a histogram, by labels."""
    buckets = f"rate({metric}_bucket{_where(where)}[$__rate_interval])"
    name = f"p{q * 100:g}"
    legend = f"{name} {_legend(by, '')}".strip()
    return Query(f"histogram_quantile({q:g}, sum by ({', '.join(('le', *by))})({buckets}))", legend)


def quantiles(metric: str, *by: str, where: str = "") -> tuple[Query, Query]:
    """Return the median and a high quantile of a histogram."""
    return quantile(0.5, metric, *by, where=where), quantile(0.99, metric, *by, where=where)


def part(some: str, whole: str, *by: str) -> Query:
    """Return the ratio of `some` (a counter's selector) to `whole`; without events there is no value."""
    rates = [f"sum{_by(by)}(rate({selector}[$__rate_interval]))" for selector in (some, whole)]
    return Query(f"{rates[0]} / {rates[1]}", _legend(by, "part"))


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""


def _where(matchers: str) -> str:
    return f"{{{matchers}}}" if matchers else ""


def _legend(by: tuple[str, ...], otherwise: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in by) or otherwise
