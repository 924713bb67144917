"""Parked messages as a feature; `python -m chassis.parked --help` is for when the gateway is away."""

from chassis.parked.messages import Parked, ParkedKeeper

__all__ = ["Parked", "ParkedKeeper"]
