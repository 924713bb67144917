"""The rotation of the pepper by its command, with two real gateways on one database and nobody refused."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from containers import make_secrets
from gateway.identity import keys
from native.postgres import PostgresServer
from support.gateway_stack import House, RunningGateway
from support.webhook_calls import created
from upkeep import rotation
from upkeep.commands import CommandLine
from upkeep.compose_stack import ComposeStack
from upkeep.errors import UpkeepError

WANTED = {"name": "shop", "scopes": ["quotes:read"]}


@dataclass
class Callers:
    """Callers with all kinds of proofs that are made with a pepper, at either of two gateways."""

    keys: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    repeated: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    webhooks: dict[str, str] = field(default_factory=dict)
    rounds: int = 0

    async def call(self, gateways: list[RunningGateway]) -> None:
        """Assert that each gateway accepts all that it and the other one have made, now and before.

        Each use of a key stores it under the pepper of the gateway, which the other one then has to know.
        """
        self.rounds += 1
        for maker, other in (gateways, gateways[::-1]):
            await self._make(maker, other)
        for gateway in (*gateways, gateways[0]):
            await self._use(gateway)
        for gateway in gateways:
            # As each says it of the key that the other one may have stored last.
            assert gateway.gateway.resources.bootstrap is not None
            assert await gateway.gateway.resources.bootstrap.refusal() is None

    async def _make(self, maker: RunningGateway, other: RunningGateway) -> None:
        name = f'"{self.rounds} {maker.url}"'
        made = await maker.api.post("/v1/api-keys", json=WANTED, headers={"idempotency-key": name})
        assert made.status_code == 201, made.text
        self.repeated.append((name, made.json()))
        self.keys.append(made.json()["key"])
        rotated = await maker.api.post(f"/v1/api-keys/{made.json()['id']}/rotate", json={"overlap_s": 3600})
        self.keys.append(rotated.json()["key"])
        token = await maker.api.post("/v1/realtime/tokens", json={})
        self.tokens.append(token.json()["token"])
        login = await maker.api.post("/v1/console/logins", json={})
        session = {"token": login.json()["path"].partition("#")[2]}
        answer = await other.api.post("/v1/console/sessions", json=session)
        assert answer.status_code == 200, answer.text
        webhook = await created(maker.api, "https://example.com/")
        self.webhooks[webhook] = await secret_of(maker, webhook)

    async def _use(self, gateway: RunningGateway) -> None:
        resources = gateway.gateway.resources
        await resources.keyring.forget()
        for key in self.keys:
            answer = await gateway.api.get("/v1/me", headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 200, answer.text
        await resources.webhook_upkeep.reseal()
        for webhook, secret in self.webhooks.items():
            assert await secret_of(gateway, webhook) == secret
        for token in self.tokens:
            access = await resources.tokens.authenticate(token)
            assert access.principal.key_id == gateway.admin_key[8:24]
        for name, made in self.repeated:
            again = await gateway.api.post("/v1/api-keys", json=WANTED, headers={"idempotency-key": name})
            assert again.json() == made


async def secret_of(gateway: RunningGateway, webhook: str) -> str:
    answer = await gateway.api.get(f"/v1/webhooks/{webhook}/secret")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["secret"])


@dataclass(frozen=True, kw_only=True)
class GatewayPair(ComposeStack):
    """Two gateways inside the test, which read the files of their containers when they start."""

    house: House
    dsn: str
    psql: Path
    loop: asyncio.AbstractEventLoop
    callers: Callers = field(default_factory=Callers)
    gateways: list[RunningGateway] = field(default_factory=list)

    is_running = True

    @property
    def gateway_url(self) -> str:
        return self.gateways[0].url

    def set_by_hand(self, name: str) -> str | None:
        return None

    def postgres(self, program: str, *arguments: str, database: str) -> CommandLine:
        return CommandLine((str(self.psql), self.dsn, *arguments), self.environment)

    def restart(self, service: str) -> None:
        assert service == "gateway"
        asyncio.run_coroutine_threadsafe(self.replace(), self.loop).result(timeout=60)

    async def replace(self) -> None:
        """Replace one gateway after the other; callers call after each."""
        for place, before in enumerate(self.gateways):
            before.server.should_exit = True
            self.gateways[place] = await self.start()
            await self.callers.call(self.gateways)

    async def start(self) -> RunningGateway:
        peppers: dict[str, Any] = {
            f"{name}key_pepper": (
                self.secrets / f"gateway/gateway-{name.replace('_', '-')}key-pepper"
            ).read_text()
            for name in ("", "previous_")
        }
        return await self.house.open(dsn=self.dsn, bootstrap_key=self.secret("api-key"), **peppers)


async def test_no_gateway_refuses_anybody_while_the_pepper_is_rotated(
    house: House, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    make_secrets.make(tmp_path / "secrets", tmp_path / "api-key", {})
    pair = GatewayPair(
        tmp_path,
        tmp_path / "secrets",
        house=house,
        dsn=await house.database(),
        psql=postgres_server.cluster.binaries / "psql",
        loop=asyncio.get_running_loop(),
    )
    pair.gateways.extend([await pair.start() for _ in range(2)])
    pair.callers.keys.append(pair.secret("api-key"))
    old = pair.secret("pepper")
    await pair.callers.call(pair.gateways)

    await asyncio.to_thread(rotation.rotate, pair, "pepper", new=None, finish=False, say=print)
    assert pair.callers.rounds == 5
    assert (pair.secret("pepper") == old, pair.secret("previous-pepper")) == (False, old)

    # Tokens and repeated answers of the old pepper end with the overlap; the keys go on.
    pair.callers.tokens.clear()
    pair.callers.repeated.clear()
    for name in ("gateway-key-pepper", "gateway-next-key-pepper"):
        written = pair.secrets / name
        os.utime(written, (written.stat().st_mtime - 60,) * 2)
    database = pair.gateways[0].database
    sealed = await database.fetchrow("SELECT id, sealed_with FROM webhooks LIMIT 1")
    assert sealed is not None
    change = "UPDATE webhooks SET sealed_with = $2 WHERE id = $1"
    await database.execute(change, sealed["id"], keys.fingerprint(old))
    with pytest.raises(UpkeepError, match="The secrets of 1 webhooks are not encrypted with the new pepper"):
        await asyncio.to_thread(rotation.rotate, pair, "pepper", new=None, finish=True, say=print)
    await database.execute(change, sealed["id"], sealed["sealed_with"])
    await asyncio.to_thread(rotation.rotate, pair, "pepper", new=None, finish=True, say=print)
    assert pair.callers.rounds == 7
    assert {gateway.settings.rotated_pepper for gateway in pair.gateways} == {None}
