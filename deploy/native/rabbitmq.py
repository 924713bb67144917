"""RabbitMQ as a private node, with its own name, ports, cookie, data and port mapper (epmd)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from native import probes, supervisor
from native.directories import RunDirectory, kept
from native.errors import MissingProgramError, NativeError
from native.ports import HOST, Ports
from native.process import Program, end_tree

VHOST = "tickwire"
ADMIN = "admin"
SERVICE_USERS = ("gateway", "stock-data", "email", "batch-processor")
DEFINITIONS = Path(__file__).resolve().parents[1] / "rabbitmq" / "definitions.json"

_INSTALLED = ("/usr/lib/rabbitmq/lib", "/usr/local/lib/rabbitmq/lib", "/opt/rabbitmq/lib")
_ALL = ".*"

_PIPE_ENDS_S = 5.0
# As often as Prometheus scrapes: statistics in between would not be read.
_STATISTICS_EVERY_MS = 30_000
# At shutdown this handler calls a process that waits for the handler, and both block for 5 s. Without its
# collector it has nothing to do, so the node removes it after its start; `rabbitmqctl` would be another VM.
_UNHOOK_STATISTICS = (
    "spawn(fun()->"
    "rabbit:await_startup(),gen_event:delete_handler(rabbit_event,rabbit_mgmt_db_handler,[])"
    "end)."
)


@dataclass(frozen=True)
class RabbitMQ:
    """One node with the vhost `tickwire`, a user per service and the user `admin` for people and tests."""

    run: RunDirectory
    ports: Ports = field(default_factory=Ports.free)
    definitions: Path = DEFINITIONS

    @property
    def url(self) -> str:
        """The AMQP URL of the user `admin`, who may do everything in the vhost."""
        return self.url_of(ADMIN)

    @property
    def metrics_url(self) -> str:
        """The address that Prometheus scrapes."""
        return f"http://{HOST}:{self.ports.rabbitmq_metrics}/metrics"

    def url_of(self, user: str) -> str:
        """Return the AMQP URL of `user`, for example of `stock-data`."""
        return f"amqp://{user}:{self._password(user)}@{HOST}:{self.ports.rabbitmq}/{VHOST}"

    @property
    def stages(self) -> list[list[Program]]:
        """The programs to run; the port mapper outlives the node, which would otherwise start its own."""
        return [[self._port_mapper()], [self._node()]]

    @property
    def control_program(self) -> tuple[str, dict[str, str]]:
        """The path of `rabbitmqctl`, and the environment in which it finds this node."""
        return str(_scripts() / "rabbitmqctl"), self._environment()

    async def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl <arguments>` against this node and return what it prints."""
        program, environment = self.control_program
        child = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output = (await child.communicate())[0].decode(errors="replace")
        except asyncio.CancelledError:
            # On a time-out, neither the script nor its children may stay behind, nor their pipe.
            await end_tree(child.pid)
            with suppress(TimeoutError):
                async with asyncio.timeout(_PIPE_ENDS_S):
                    await child.communicate()
            raise
        if child.returncode:
            raise NativeError(f"rabbitmqctl {' '.join(arguments)} failed ({child.returncode}):\n{output}")
        return output

    def configuration(self) -> str:
        """Return the text of its file of settings, `rabbitmq.conf`."""
        settings = {
            "listeners.tcp.local": f"{HOST}:{self.ports.rabbitmq}",
            "prometheus.tcp.ip": HOST,
            "prometheus.tcp.port": self.ports.rabbitmq_metrics,
            "load_definitions": self._home / "definitions.json",
            "vm_memory_high_watermark.absolute": "1GB",
            "disk_free_limit.absolute": "256MB",
            # The log stays in memory until it rolls over; its default of 512 MiB is too much for a laptop.
            "raft.wal_max_size_bytes": 64 * 1024 * 1024,
            "management_agent.disable_metrics_collector": "true",
            "collect_statistics_interval": _STATISTICS_EVERY_MS,
            "log.console": "true",
            "log.console.level": "info",
            "log.file": "false",
        }
        return "".join(f"{key} = {value}\n" for key, value in settings.items())

    @property
    def _home(self) -> Path:
        return self.run.data / "rabbitmq"

    def _password(self, user: str) -> str:
        return self.run.secret(f"rabbitmq-{user}")

    def _port_mapper(self) -> Program:
        binary = shutil.which("epmd")
        if binary is None:
            raise MissingProgramError("epmd (Erlang) is not installed: run `make setup`")
        port = self.ports.epmd
        return Program(
            name="epmd",
            command=(binary, "-port", str(port), "-address", HOST),
            environment=self.run.environment(),
            directory=self.run.root,
            log=self.run.log("epmd"),
            probe=probes.tcp(port),
        )

    def _node(self) -> Program:
        port = self.ports.rabbitmq
        return Program(
            name="rabbitmq",
            command=(str(_scripts() / "rabbitmq-server"), "-noinput"),
            environment=self._environment(),
            directory=self.run.root,
            log=self.run.log("rabbitmq"),
            probe=probes.tcp(
                port, send=b"AMQP\x00\x00\x09\x01", expect=b"\x01", what=f"AMQP on {HOST}:{port}"
            ),
            prepare=self._prepare,
            stop_timeout_s=30.0,
        )

    async def _prepare(self) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        cookie = self._home / ".erlang.cookie"
        kept(cookie, secrets.token_hex(16))
        cookie.chmod(0o400)
        (self._home / "enabled_plugins").write_text("[rabbitmq_prometheus].\n")
        (self._home / "rabbitmq.conf").write_text(self.configuration())
        passwords = {user: self._password(user) for user in (*SERVICE_USERS, ADMIN)}
        defined = json.loads(self.definitions.read_text()) if self.definitions.exists() else {}
        merged = with_users(defined, passwords)
        (self._home / "definitions.json").write_text(json.dumps(merged, indent=2))
        # If the node finds no port mapper, it starts its own as a daemon, which nobody would stop.
        await probes.tcp(self.ports.epmd).passed(timeout_s=10.0)

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        return self.run.environment() | {
            "HOME": home,
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": HOST,
            # The data is tied to the node's name; with a private port mapper, every stack can use the same.
            "RABBITMQ_NODENAME": "tickwire@localhost",
            "RABBITMQ_DIST_PORT": str(self.ports.rabbitmq_distribution),
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_MNESIA_DIR": f"{home}/data/node",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": "-",
            # By default Erlang writes it into the current folder.
            "ERL_CRASH_DUMP": f"{home}/log/erl_crash.dump",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{home}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{home}/node.pid",
            # The default table of a million processes takes 12 MiB; a stack has a few hundred processes.
            "RABBITMQ_MAX_NUMBER_OF_PROCESSES": "65536",
            # Without this a shell stays between us and the node, and takes the signals and the exit code.
            "RABBITMQ_ALLOW_INPUT": "1",
            # The metrics of Erlang itself, which nothing reads, would be a third of the work of a scrape. A
            # node that is alone need not wake ten times a second to tell others that it lives.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-eval {_UNHOOK_STATISTICS} "
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -prometheus collectors [] "
                "-aten heartbeat_interval 5000 "
                "-kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        }


@asynccontextmanager
async def start(
    directory: Path, ports: Ports | None = None, *, definitions: Path = DEFINITIONS, fast: bool = True
) -> AsyncIterator[RabbitMQ]:
    """Run a private node with its data in `directory` for the length of the block.

    A `fast` one ends at once, without time to save what it holds in memory.
    """
    server = RabbitMQ(RunDirectory.at(directory), ports or Ports.free(), definitions)
    async with supervisor.running(server.run.root, server.stages, at_once=fast):
        yield server


def with_users(definitions: Mapping[str, Any], passwords: Mapping[str, str]) -> dict[str, Any]:
    """Return `definitions` with exactly these users and their permissions.

    A service user that has no permissions in the definitions gets the whole vhost; so does `admin`.
    """
    allowed = [entry for entry in definitions.get("permissions", []) if entry["user"] in passwords]
    missing = passwords.keys() - {entry["user"] for entry in allowed}
    everything = {"vhost": VHOST, "configure": _ALL, "write": _ALL, "read": _ALL}
    topics = [entry for entry in definitions.get("topic_permissions", []) if entry["user"] in passwords]
    return dict(definitions) | {
        "vhosts": definitions.get("vhosts") or [{"name": VHOST}],
        "users": [_user(name, password) for name, password in passwords.items()],
        "permissions": [*allowed, *({"user": user, **everything} for user in sorted(missing))],
        "topic_permissions": topics,
    }


def _user(name: str, password: str) -> dict[str, Any]:
    salt = secrets.token_bytes(4)
    digest = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {
        "name": name,
        "password_hash": digest,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": "administrator" if name == ADMIN else "",
    }


def _scripts() -> Path:
    """Return the folder of the original scripts; Debian's `rabbitmqctl` on the PATH switches the user."""
    for base in _INSTALLED:
        for folder in sorted(Path(base).glob("rabbitmq_server-*/sbin"), reverse=True):
            return folder
    raise MissingProgramError("rabbitmq-server is not installed: run `make setup`")
