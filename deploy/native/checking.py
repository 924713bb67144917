"""The settings of all services, checked before anything starts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from chassis.settings import InvalidSettings, Settings, load, unknown
from native.errors import SettingError
from native.ports import Ports
from native.services import SERVICES, Backing, Service


def check(backing: Backing, ports: Ports) -> None:
    """Raise `SettingError` with everything that is wrong in the settings of any service."""
    problems: dict[str, None] = {}
    for service in SERVICES:
        try:
            load(model(service), backing.environment(service, ports))
        except InvalidSettings as error:
            problems |= dict.fromkeys(str(error).splitlines()[1:])
    if problems:
        raise SettingError("\n".join(["Settings are wrong, nothing was started:", *problems]))


def notes(variables: Mapping[str, str]) -> list[str]:
    """Return a line for each of `variables` that looks like a setting and that no service knows."""
    found = unknown([model(service) for service in SERVICES], variables)
    return [
        f"unknown: {name}" + (f"; did you mean {nearest}?" if nearest else "")
        for name, nearest in found.items()
    ]


def model(service: Service) -> type[Settings]:
    """Return the settings class of `service`."""
    found = vars(importlib.import_module(f"{service.package}.settings")).values()
    (settings,) = (
        each
        for each in found
        if isinstance(each, type) and issubclass(each, Settings) and each is not Settings
    )
    return settings
