"""The ports of a stack: defaults, overrides, free ones for tests, and the check before a start."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields

from native.errors import PortTakenError, SettingError

HOST = "127.0.0.1"
NEEDS_ROOT = "needs root"

OFFSET = "PORT_OFFSET"
VARIABLES = {
    "gateway": "GATEWAY_PORT",
    "gateway_ops": "GATEWAY_OPS_PORT",
    "stock_data": "STOCK_DATA_PORT",
    "email": "EMAIL_PORT",
    "batch_processor": "BATCH_PROCESSOR_PORT",
    "prometheus": "NATIVE_PROMETHEUS_PORT",
    "mailbox_smtp": "NATIVE_MAILBOX_SMTP_PORT",
    "mailbox_http": "NATIVE_MAILBOX_HTTP_PORT",
    "rabbitmq": "NATIVE_RABBITMQ_PORT",
    "rabbitmq_metrics": "NATIVE_RABBITMQ_METRICS_PORT",
    "rabbitmq_distribution": "NATIVE_RABBITMQ_DISTRIBUTION_PORT",
    "epmd": "NATIVE_EPMD_PORT",
    "postgres": "NATIVE_POSTGRES_PORT",
    "memcached": "NATIVE_MEMCACHED_PORT",
    "postgres_exporter": "NATIVE_POSTGRES_EXPORTER_PORT",
    "webhook_receiver": "NATIVE_WEBHOOK_RECEIVER_PORT",
}

# Below the kernel's ephemeral range, so that no outgoing connection takes a port between its choice and use.
_FREE_RANGE = range(18000, 32000)
# Descriptors of sockets bound to the ports that were last given out; they do not listen. A server can take
# such a port, because it sets SO_REUSEADDR; another search for free ports cannot, even before it listens.
_given_out: deque[int] = deque()
_MOST_HELD = 256


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Every port of one stack; all are bound on 127.0.0.1.

    `make demo` listens on `webhook_receiver`, to which the gateway may send requests of webhooks.
    """

    gateway: int = 8080
    gateway_ops: int = 8090
    stock_data: int = 8081
    email: int = 8082
    batch_processor: int = 8083
    prometheus: int = 9090
    mailbox_smtp: int = 1025
    mailbox_http: int = 8025
    rabbitmq: int = 5673
    rabbitmq_metrics: int = 15693
    rabbitmq_distribution: int = 25673
    epmd: int = 4370
    postgres: int = 5433
    memcached: int = 11212
    postgres_exporter: int = 9187
    webhook_receiver: int = 8084

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Ports:
        """Return the defaults, shifted by `PORT_OFFSET`, with the overrides from `environment`.

        Raise `SettingError` with all that is wrong.
        """
        ports, problems = cls.read(environment)
        if problems:
            raise SettingError("\n".join(problems))
        return ports

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> tuple[Ports, list[str]]:
        """Return the ports like `from_environment`, and all that is wrong; a wrong port keeps its default."""
        problems: list[str] = []
        moved_by = offset(environment, problems)
        numbered = {name: number + moved_by for name, number in cls().numbered().items()}
        uses: dict[int, list[str]] = {}
        for name, variable in VARIABLES.items():
            if environment.get(variable):
                chosen = _number(environment, name, problems)
                if chosen is None:
                    continue
                numbered[name] = chosen
            uses.setdefault(numbered[name], []).append(variable)
        problems += [
            f"Port {number} is assigned to more than one process: change one of {', '.join(variables)}"
            for number, variables in uses.items()
            if len(variables) > 1
        ]
        return cls(**numbered), problems

    @classmethod
    def free(cls) -> Ports:
        """Return ports that are free now."""
        return cls(**dict(zip(names(), free_ports(len(names())), strict=True)))

    def numbered(self) -> dict[str, int]:
        """Return port numbers by name."""
        return {name: int(getattr(self, name)) for name in names()}


def names() -> list[str]:
    """Return the names of all ports of a stack."""
    return [field.name for field in fields(Ports)]


def free_ports(count: int) -> list[int]:
    """Return `count` different ports on 127.0.0.1 that can be bound, and that no other search returns."""
    # A test that runs beside `make run` must not use its ports.
    reserved = set(Ports().numbered().values())
    found: list[int] = []
    while len(found) < count:
        candidate = random.choice(_FREE_RANGE)  # noqa: S311  not a secret
        if candidate in reserved:
            continue
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            holder.bind((HOST, candidate))
        except OSError:
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _given_out.append(holder.detach())
        found.append(candidate)
    while len(_given_out) > _MOST_HELD:
        os.close(_given_out.popleft())
    return found


def free_port() -> int:
    """Return one port on 127.0.0.1 that can be bound now."""
    return free_ports(1)[0]


def check_free(ports: Ports) -> None:
    """Raise `PortTakenError` with one line for every port that cannot be bound."""
    problems = {name: why_taken(number) for name, number in ports.numbered().items()}
    lines = [
        complaint(name.replace("_", "-"), ports.numbered()[name], text, f"make run {VARIABLES[name]}")
        for name, text in problems.items()
        if text
    ]
    if len(lines) > 1:
        lines.append("Or move all ports at once: make run PORT_OFFSET=10000")
    if lines:
        raise PortTakenError("\n".join(lines))


def complaint(name: str, number: int, problem: str, command: str) -> str:
    """Return the line about a port that cannot be bound; `command` and another number choose that one."""
    other = free_port() if number < 1024 else number + 10000 if number + 10000 < 32000 else number - 1000
    return f"Port {number} for {name} {problem}. Stop that program, or choose another port: {command}={other}"


def why_taken(number: int, host: str = HOST) -> str | None:
    """Return why a port cannot be bound, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except PermissionError:
            return NEEDS_ROOT
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return f"cannot be opened on {host} ({error.strerror})"
            return f"is taken{_holder(number)}"
    return None


def _holder(number: int) -> str:
    try:
        # psutil is not installed yet when ports are checked before the first installation.
        import psutil
    except ImportError:
        return ""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return ""
    pids = [
        c.pid for c in connections if c.status == "LISTEN" and c.laddr and c.laddr.port == number and c.pid
    ]
    return f" by {psutil.Process(pids[0]).name()} (process {pids[0]})" if pids else ""


def _number(environment: Mapping[str, str], name: str, problems: list[str]) -> int | None:
    variable = VARIABLES[name]
    text = environment[variable].strip()
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    default = getattr(Ports(), name)
    problems.append(
        f"{variable} is {text!r}: expected a port number from 1 to 65535, for example {variable}={default}"
    )
    return None


def offset(environment: Mapping[str, str], problems: list[str]) -> int:
    """Return `PORT_OFFSET`; an invalid one is 0, and is added to `problems`."""
    text = environment.get(OFFSET, "").strip() or "0"
    most = 65535 - max(Ports().numbered().values())
    if text.isdecimal() and int(text) <= most:
        return int(text)
    problems.append(
        f"PORT_OFFSET is {text!r}: expected a number from 0 to {most}, for example PORT_OFFSET=10000"
    )
    return 0
