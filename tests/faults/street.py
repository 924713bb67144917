"""The stage for neighbour and guests: the whole product, a scripted relay and provider, and a mailbox."""

from __future__ import annotations

import os
import smtplib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path

import httpx
import yaml

from contracts.scopes import FOR_MEMBERS
from faults.elsewhere import elsewhere
from faults.faulty_operation import FAULTY
from faults.rig import VARIABLES, Rig
from native import stack as native_stack
from native import supervisor
from native.directories import RunDirectory
from native.mailbox.server import MailboxServer
from native.ports import HOST, Ports
from native.services import NAMES
from native.stack import Stack
from support.doubles import alpaca, smtp
from support.doubles.alpaca import AlpacaDouble
from support.doubles.smtp import SmtpServer

REPOSITORY = Path(__file__).resolve().parents[2]

# The first is pushed by the replay, the others only the outside provider has; the last may be broken.
SYMBOLS = ("AAPL", "GOOD", "BROKEN")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass
class Street:
    """A running product, the servers around it by their scripts, and an API key for each who lives here."""

    stack: Stack
    relay: SmtpServer
    provider: AlpacaDouble
    mailbox: MailboxServer
    keys: Mapping[str, str]

    @property
    def url(self) -> str:
        """The public address of the gateway."""
        return self.stack.url

    @property
    def rig(self) -> Rig:
        """The same as the rig of the scenarios, without a proxy before its servers."""
        return Rig(self.stack, {}, self.relay, [self.stack.url])

    def headers(self, who: str) -> dict[str, str]:
        """Return the headers of a request of `who`."""
        return {"Authorization": f"Bearer {self.keys[who]}"}


def environment() -> dict[str, str]:
    """Return the environment of a process that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def put_into_mailbox(address: tuple[str, int], mail: EmailMessage) -> None:
    """Hand a mail to the development mailbox at `address` by SMTP."""
    with smtplib.SMTP(*address, timeout=30) as server:
        server.send_message(mail)


def memory_limits() -> dict[str, int]:
    """Return the bytes that the container of each service may have, as compose.yaml says."""
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    texts = {name: str(services[name]["mem_limit"]) for name in NAMES}
    return {name: int(text[:-1]) * _UNITS[text[-1].lower()] for name, text in texts.items()}


@asynccontextmanager
async def running(directory: Path, *, variables: Mapping[str, str] | None = None) -> AsyncIterator[Street]:
    """Run a street in `directory` for the length of the block; `variables` are for all services.

    A `PYTHONPATH` among them comes before that of the street.
    """
    ports = Ports.free()
    async with elsewhere(alpaca.running()) as provider, elsewhere(smtp.running()) as relay:
        own = {
            **VARIABLES,
            "STOCK_DATA_PROVIDERS": "alpaca,embedded",
            "STOCK_DATA_REPLAY_ENABLED": "true",
            "STOCK_DATA_ALPACA_URL": provider.url,
            "STOCK_DATA_ALPACA_KEY_ID": alpaca.KEY_ID,
            "STOCK_DATA_ALPACA_SECRET_KEY": alpaca.SECRET,
            # The receivers of webhooks are here, too.
            "GATEWAY_WEBHOOK_INTERNAL_TARGETS": HOST,
            **(variables or {}),
        }
        first = [own["PYTHONPATH"]] if "PYTHONPATH" in own else []
        own["PYTHONPATH"] = os.pathsep.join([*first, str(_plugins(directory)), *_import_path()])
        async with (
            native_stack.start(
                directory / "stack",
                ports=ports,
                without=("prometheus", "mailbox"),
                via={"mailbox_smtp": relay.port},
                variables=own,
            ) as stack,
            _mailbox(directory / "mailbox", own) as box,
        ):
            street = Street(stack, relay, provider, box, await _keys(stack))
            calm(street)
            await street.rig.recovered()
            yield street


def calm(street: Street) -> None:
    """End the faults that the guests have set up at the relay and the provider."""
    street.relay.scripts.clear()
    street.relay.received.clear()
    street.relay.commands.clear()
    street.provider.forget()
    street.provider.snapshots = {symbol: alpaca.snapshot(11) for symbol in SYMBOLS[1:]}


@asynccontextmanager
async def _mailbox(directory: Path, variables: Mapping[str, str]) -> AsyncIterator[MailboxServer]:
    server = MailboxServer(RunDirectory.at(directory))
    wanted = {name: text for name, text in variables.items() if name.startswith(("PYTHONPATH", "FAULTS_"))}
    stages = [
        [replace(one, environment={**one.environment, **wanted}) for one in stage] for stage in server.stages
    ]
    async with supervisor.running(server.run.root, stages):
        yield server


async def _keys(stack: Stack) -> dict[str, str]:
    found = {}
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=30) as client:
        for who in ("neighbour", "guest"):
            user = await client.post("/v1/users", json={"name": who, "email": f"{who}@example.com"})
            scopes = sorted(FOR_MEMBERS)
            key = {"name": who, "scopes": scopes, "user_id": user.json()["id"]}
            found[who] = (await client.post("/v1/api-keys", json=key)).json()["key"]
    return found


def _import_path() -> list[str]:
    return [path for path in sys.path if path and path.startswith(str(REPOSITORY))]


def _plugins(directory: Path) -> Path:
    """Install the operation whose items go wrong, as an installed package would be found."""
    folder = directory / "plugins"
    installed = folder / f"{FAULTY}-1.0.dist-info"
    installed.mkdir(parents=True, exist_ok=True)
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {FAULTY}\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        f"[tickwire.operations]\n{FAULTY} = faults.faulty_operation:OPERATION\n"
    )
    return folder
