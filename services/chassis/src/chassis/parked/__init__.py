"""Parked messages as a feature; `python -m chassis.parked --help` is for when the gateway is down."""

from chassis.parked.messages import Parked, ParkedKeeper, park_unpublishable

__all__ = ["Parked", "ParkedKeeper", "park_unpublishable"]
