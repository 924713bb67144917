"""The ports at which a stack in containers or pods is published: moved, and checked before anything is built.

With them, the names of variables that only compose and commands read.

`python -m containers.published move` prints the ports that `.env` sets, and what `PORT_OFFSET` makes of those
that no variable sets, for `eval`: compose.yaml cannot add, and scripts do not read `.env`. It prints
the context of `kubectl`, too, if there is one.
`python -m containers.published check <service> …` names every port of these services that another program
has. It imports only the standard library.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from shlex import quote

from native.errors import NativeError, PortTakenError, SettingError
from native.ports import HOST, NEEDS_ROOT, complaint, offset, why_taken
from native.settings import given, names

_IPV4 = re.compile(r"[0-9.]+")
_DOTENV = Path(__file__).resolve().parents[2] / ".env"
_EXAMPLE = _DOTENV.with_name(".env.example")
# Where the settings begin that no service reads, and so none of the checks of services can know.
_OF_COMPOSE = "# ── Compose"
_ALIKE = 0.9
_CONTEXT = "KUBE_CONTEXT"


@dataclass(frozen=True)
class PublishedPort:
    """The port of a service: its default, and the variables that set it and its address."""

    service: str
    variable: str
    default: int
    address: str = "PUBLISH_ADDRESS"

    def number(self, variables: Mapping[str, str]) -> int:
        """Return the port. Raise `SettingError` if it is none."""
        text = variables.get(self.variable) or str(self.default)
        if text.isdecimal() and 0 < int(text) < 65536:
            return int(text)
        raise SettingError(
            f"{self.variable} is {text!r}: expected a port number from 1 to 65535, "
            f"for example {self.variable}={self.default}"
        )


PORTS = (
    PublishedPort("gateway", "GATEWAY_PORT", 8080),
    PublishedPort("mailpit", "MAILPIT_PORT", 8025),
    PublishedPort("grafana", "GRAFANA_PORT", 3000),
    PublishedPort("proxy", "TLS_PORT", 8443, "TLS_ADDRESS"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command given on the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m containers.published", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("move")
    checked = commands.add_parser("check")
    checked.add_argument("--own", action="append", default=[], help="an address of this stack, as it runs")
    checked.add_argument("--command", dest="way", default="make up", help="what to type (make up)")
    checked.add_argument("services", nargs="+", choices=[one.service for one in PORTS])
    options = parser.parse_args(arguments)
    try:
        variables = given(os.environ, _DOTENV)
        if options.command == "move":
            context = {_CONTEXT: variables[_CONTEXT]} if variables.get(_CONTEXT) else {}
            exported: dict[str, int | str] = {**chosen(variables), **context}
            sys.stdout.writelines(f"export {name}={quote(str(it))}\n" for name, it in exported.items())
        else:
            sys.stderr.writelines(f"{line}\n" for line in misspelled(variables, _EXAMPLE))
            own = {address.rpartition(":")[2] for address in options.own}
            check(variables, options.services, own=own, command=options.way)
    except NativeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def misspelled(variables: Mapping[str, str], example: Path) -> Iterator[str]:
    """Yield a line for each variable that is almost one of those that compose and commands read."""
    known = names(example.read_text(encoding="utf-8"))
    readable = set(names(example.read_text(encoding="utf-8").partition(_OF_COMPOSE)[2]))
    for name in sorted(variables.keys() - set(known)):
        for nearest in get_close_matches(name, known, n=1, cutoff=_ALIKE):
            if nearest in readable:
                yield f"unknown setting, ignored: {name}; did you mean {nearest}?"


def moved(variables: Mapping[str, str]) -> dict[str, int]:
    """Return the ports that `PORT_OFFSET` moves. Raise `SettingError` if it is no offset."""
    problems: list[str] = []
    moved_by = offset(variables, problems)
    if problems:
        raise SettingError(problems[0])
    return {
        one.variable: one.default + moved_by for one in PORTS if moved_by and not variables.get(one.variable)
    }


def chosen(variables: Mapping[str, str]) -> dict[str, int]:
    """Return the ports that are not the usual ones, set or moved. Raise `SettingError` if one is none."""
    own = {one.variable: one.number(variables) for one in PORTS if variables.get(one.variable)}
    return own | moved(variables)


def check(
    variables: Mapping[str, str], services: Collection[str], *, own: Collection[str], command: str
) -> None:
    """Raise `PortTakenError` with a line for each port that another program has; `own` is the stack's."""
    lines = []
    for one in PORTS:
        number = one.number(variables)
        if one.service not in services or str(number) in own:
            continue
        address = variables.get(one.address) or HOST
        # Others are the engine's business.
        problem = why_taken(number, address) if _IPV4.fullmatch(address) else None
        # The engine opens it as root.
        if problem and problem != NEEDS_ROOT:
            lines.append(complaint(one.service, number, problem, f"{command} {one.variable}"))
    if len(lines) > 1:
        lines.append(f"Or move all ports at once: {command} PORT_OFFSET=10000")
    if lines:
        raise PortTakenError("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
