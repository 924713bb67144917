"""The settings of all services, checked before anything starts.

A separate process does it (`python -m native.checking`): it imports the services' settings, which the
long-running runner need not load.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from native.errors import NativeError, SettingError
from native.ports import Ports
from native.services import SERVICES, Backing, ServiceProgram
from native.settings import names

if TYPE_CHECKING:
    from chassis.settings import Settings

_DEPLOY = Path(__file__).resolve().parents[1]
# It also has the settings of the runner, of backups and of compose.
_EXAMPLE = _DEPLOY.with_name(".env.example")
_PATIENCE_S = 60


async def check(
    backing: Backing, ports: Ports, *, say: Callable[[str], None], problems: Sequence[str] = ()
) -> None:
    """Report variables that look like settings but that no service knows.

    Raise `SettingError` with all errors in the settings of all services, after `problems` of the ports.
    """
    asked = {
        "variables": dict(backing.variables),
        "environments": {service.name: backing.environment(service, ports) for service in SERVICES},
    }
    path = os.pathsep.join(filter(None, (str(_DEPLOY), os.environ.get("PYTHONPATH"))))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "native.checking"),
        env=os.environ | {"PYTHONPATH": path},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            said, complaint = await process.communicate(json.dumps(asked).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise NativeError(f"The settings cannot be checked:\n{complaint.decode(errors='replace')}")
    found = json.loads(said)
    for note in found["notes"]:
        say(note)
    wrong = [*(f"  {problem}" for problem in problems), *found["problems"]]
    if wrong:
        raise SettingError("\n".join(["Settings are wrong, nothing was started:", *wrong]))


def wrong_settings(environments: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the errors in the settings of the services, each once."""
    from chassis.settings import InvalidSettings, load

    found: dict[str, None] = {}
    for service in SERVICES:
        try:
            load(model(service), environments[service.name])
        except InvalidSettings as error:
            found |= dict.fromkeys(str(error).splitlines()[1:])
    return list(found)


def notes(variables: Mapping[str, str]) -> list[str]:
    """Return a line for each of `variables` that looks like a setting but that nobody knows."""
    from chassis.settings import unknown

    models = [model(service) for service in SERVICES]
    found = unknown(models, variables, others=names(_EXAMPLE.read_text(encoding="utf-8")))
    return [
        f"unknown: {name}" + (f"; did you mean {nearest}?" if nearest else "")
        for name, nearest in found.items()
    ]


def model(service: ServiceProgram) -> type[Settings]:
    """Return the settings class of `service`."""
    from chassis.inspecting import model_of

    return model_of(service.package)


def main() -> None:
    """Check the settings read from the standard input, and print the findings."""
    asked = json.load(sys.stdin)
    print(json.dumps({"notes": notes(asked["variables"]), "problems": wrong_settings(asked["environments"])}))


if __name__ == "__main__":
    main()
