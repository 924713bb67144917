"""Parked messages as a feature; `python -m chassis.broker.parked --help` is for when the gateway is away."""

from chassis.broker.parked.messages import Parked, ParkedKeeper

__all__ = ["Parked", "ParkedKeeper"]
