"""The real containers after a kill, a stop, a rotation or a restore: nothing accepted is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.deployment import previous_images, verbs
from support.deployment.accepted import accept, ended, ends, letter, post, subjects
from support.deployment.composed import REPOSITORY, SERVICES, Composed, until
from support.deployment.rotating import may_log_in, rotate_all
from upkeep import backups, rotation
from upkeep.backups import BackupOptions
from upkeep.compose_stack import ComposeStack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(480)]

RETRY = """
import asyncio, pathlib, aiormq
async def main():
    connection = await aiormq.connect(pathlib.Path('/run/secrets/rabbitmq-url').read_text())
    channel = await connection.channel(publisher_confirms=True)
    queue = 'batch-processor.test-of-the-ladder'
    await channel.queue_declare(queue, durable=True, arguments={'x-queue-type': 'quorum'})
    came = asyncio.get_running_loop().create_future()
    async def take(message):
        await channel.basic_ack(message.delivery.delivery_tag)
        came.set_result(message.header.properties.headers)
    await channel.queue_bind(queue, 'batch-processor', routing_key=queue)
    consumer = await channel.basic_consume(queue, take)
    properties = aiormq.spec.Basic.Properties(delivery_mode=2, headers={'CC': [queue], 'x-attempt': 2})
    ladder = 'retry.batch-processor'
    await channel.basic_publish(b'{}', exchange=ladder, routing_key='2s', properties=properties)
    headers = await asyncio.wait_for(came, 20)
    print(headers['x-attempt'], headers['x-first-death-queue'])
    await channel.basic_cancel(consumer.consumer_tag)
    await channel.queue_delete(queue)
    await connection.close()
asyncio.run(main())
"""


def test_a_failed_message_comes_back_after_its_delay_on_this_broker(stack: Composed) -> None:
    assert stack.python("batch-processor", RETRY).split() == ["2", "retry.batch-processor.2s"]


@pytest.mark.parametrize(
    "killed",
    [
        ("email", "batch-processor"),
        ("rabbitmq",),
        ("postgres",),
        ("stock-data", "gateway"),
        ("memcached",),
    ],
    ids="+".join,
)
def test_a_killed_container_loses_nothing_that_was_accepted(stack: Composed, killed: tuple[str, ...]) -> None:
    mark = uuid4().hex
    with stack.api as api:
        ids = [f"/v1/emails/{post(api, '/v1/emails', letter(f'{mark} {n}'))['id']}" for n in range(20)]
        items = [{"n": n} for n in range(2000)]
        ids.append(f"/v1/batches/{post(api, '/v1/batches', {'operation': 'echo', 'items': items})['id']}")
        kill(stack, *killed)
        if {"gateway", "postgres"}.isdisjoint(killed):
            ids.append(f"/v1/emails/{post(api, '/v1/emails', letter(f'{mark} 20'))['id']}")
        # The engine starts them again by itself.
        until(lambda: True if all(stack.is_healthy(service) for service in killed) else None, timeout_s=120)
        assert ends(api, ids) == {"delivered", "completed"}
    arrived = {subject for subject in subjects(stack) if subject.startswith(mark)}
    assert len(arrived) == len(ids) - 1


def test_secrets_are_rotated_under_load_and_callers_of_the_proxy_do_not_notice(
    stack: Composed, upkeep: ComposeStack
) -> None:
    key, names = stack.key, ("postgres-emailer", "rabbitmq-email")
    old = {name: upkeep.secret(name) for name in names}
    rotation.rotate(upkeep, "api-key", new=None, finish=False, say=print)
    assert upkeep.ask("/v1/me", key=key)[0] == 401
    with load(stack) as answers:
        for name in names:
            rotation.rotate(upkeep, name, new=None, finish=False, say=print)
    assert [name for name in names if may_log_in(upkeep, name, old[name])] == []
    check_done(stack, answers)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_secret_of_containers_is_rotated_under_load(stack: Composed, upkeep: ComposeStack) -> None:
    check_done(stack, rotate_all(upkeep, load(stack)))


def test_a_lost_administrators_key_is_replaced_in_containers(stack: Composed) -> None:
    lost = stack.key
    said = verbs.call("compose", "keys-reset", environment=stack.engine.environment)
    assert stack.key != lost
    assert stack.key in said
    with stack.api as api:
        assert api.get("/v1/me").status_code == 200


@pytest.mark.long
def test_a_backup_made_under_load_restores_all_that_was_accepted_after_all_volumes_are_lost(
    stack: Composed, upkeep: ComposeStack, tmp_path: Path
) -> None:
    with load(stack) as answers:
        until(lambda: True if len(answers.paths) > 20 else None)
        before = list(answers.paths)
        file = backups.back_up(upkeep, BackupOptions(tmp_path, passphrase=None, keep=2), say=print)
        # Work was accepted all the time.
        assert len(answers.paths) > len(before) + 20
    assert answers.failures == []
    stack.compose("down", "--volumes")
    stack.up()
    with stack.api as api:
        replaced = accept(api, "/v1/emails", letter("of the new databases"))
        assert ended(api, replaced)["status"] == "delivered"
        backups.restore(upkeep, file, passphrase=None, say=print)
    with stack.api as api:
        assert ends(api, before) == {"delivered", "completed"}
        assert api.get(replaced).status_code == 404


def test_clients_of_the_proxy_do_not_notice_a_rollback_and_an_upgrade(
    stack: Composed, upkeep: ComposeStack, previous: dict[str, str]
) -> None:
    before_rights = rights(upkeep)
    with load(stack) as answers:
        before = {service: stack.container(service) for service in (*SERVICES, "gateway-2", "proxy")}
        subprocess.run(
            [REPOSITORY / "deploy/containers/replace"],
            env=previous,
            capture_output=True,
            timeout=300,
            check=True,
        )
        meanwhile = {service: stack.container(service) for service in before}
        sources = [stack.python(service, previous_images.WHERE) for service in SERVICES]
        # As if the release before had known less, and this one had just written its definitions.
        upkeep.rabbitmqctl("set_permissions", "--vhost", "tickwire", "email", "^$", *before_rights[1:]).run()
        (stack.secrets / "rabbitmq/rabbitmq-definitions.json").touch()
        stack.up()
    assert all(source.startswith(previous_images.FOLDER) for source in sources), sources
    assert {service for service in before if before[service] == meanwhile[service]} == {"proxy"}
    assert stack.python("gateway", previous_images.WHERE).startswith("/opt/tickwire/")
    assert rights(upkeep) == before_rights
    check_done(stack, answers)


def rights(upkeep: ComposeStack) -> list[str]:
    """Return what email may configure, write and read at the broker."""
    said = upkeep.rabbitmqctl("--quiet", "list_user_permissions", "email", "--no-table-headers").run()
    return said.strip().split("\t")[1:]


@pytest.fixture
def previous(stack: Composed, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the environment in which compose takes images with the code of the release before."""
    images = [f"localhost/tickwire/{service}:{stack.tag}" for service in SERVICES]
    with previous_images.built(stack.engine, images, tmp_path):
        yield {**stack.engine.environment, "TICKWIRE_TAG": f"{stack.tag}-previous"}


def test_a_stopped_service_drains_and_exits_cleanly(stack: Composed) -> None:
    stack.compose("stop", *SERVICES)
    codes = {service: stack.inspect(service)["State"]["ExitCode"] for service in SERVICES}
    stack.compose("up", "--detach", "--wait", *SERVICES)
    assert codes == dict.fromkeys(SERVICES, 0)


def test_up_reports_a_service_that_cannot_become_ready(stack: Composed) -> None:
    broken = replace(stack.engine, environment={**stack.engine.environment, "EMAIL_SMTP_TLS": "perhaps"})
    with pytest.raises(subprocess.CalledProcessError):
        broken.docker("compose", "up", "--wait", "--wait-timeout", "60", "--no-deps", "email")
    assert "EMAIL_SMTP_TLS" in stack.compose("logs", "--tail", "20", "email")
    stack.compose("up", "--detach", "--wait", "email")


def test_the_data_survives_down_and_a_start_by_compose_alone(stack: Composed) -> None:
    with stack.api as api:
        path = f"/v1/emails/{post(api, '/v1/emails', letter('kept'))['id']}"
        assert ended(api, path)["status"] == "delivered"
    stack.make("down")
    assert stack.compose("ps", "--all", "--quiet").split() == []
    stack.engine.docker("rmi", f"localhost/tickwire/stock-data:{stack.tag}")
    with by_compose_alone(stack) as said:
        services = set(SERVICES) | {"rabbitmq", "postgres", "memcached", "mailpit"}
        until(lambda: all_healthy(stack, services), timeout_s=120)
        with stack.api as api:
            assert api.get(path).json()["status"] == "delivered"
        assert {*stack.compose("ps", "--services").split()} == services
    # Whoever reads the first lines finds the way in; the builds come before them.
    told = next(line for line in said if "When the gateway is healthy" in line)
    assert f"http://127.0.0.1:{stack.port}" in told
    assert str(stack.secrets.parent / "api-key") in told
    assert stack.compose("ps", "--quiet").split() == []


def all_healthy(stack: Composed, services: Collection[str]) -> bool | None:
    """Return True once there are containers of all these services, and all are healthy."""
    listed = stack.compose("ps", "--format", "{{.Service}} {{.Health}}").splitlines()
    return True if {f"{service} healthy" for service in services} <= set(listed) else None


@contextmanager
def by_compose_alone(stack: Composed) -> Iterator[list[str]]:
    """Type `docker compose up` for the block, then Ctrl-C; the list has the lines that were printed."""
    environment = {**stack.engine.environment, "COMPOSE_PROFILES": ""}
    said: list[str] = []
    with (stack.secrets.parent / "terminal").open("w+") as terminal:
        typed = subprocess.Popen(
            ["docker", "compose", "up"], cwd=REPOSITORY, env=environment, stdout=terminal, stderr=terminal
        )
        try:
            yield said
        finally:
            typed.send_signal(signal.SIGINT)
            typed.wait(timeout=120)
            terminal.seek(0)
            said += terminal.read().splitlines()
            print(*said[:40], sep="\n")


@dataclass
class CallerAnswers:
    """The answers to callers behind the proxy: the paths of accepted work, and every failed answer."""

    paths: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ask(self, api: httpx.Client, path: str, body: dict[str, Any]) -> None:
        try:
            answer = api.post(path, json=body)
        except httpx.HTTPError as error:
            self._failed(repr(error))
            return
        if answer.status_code == 202:
            self.paths.append(f"{path}/{answer.json()['id']}")
        else:
            # The gateway's answers have an id, which is in its log, and the proxy's own have none.
            found = answer.headers.get("x-request-id")
            self._failed(f"{path}: {answer.status_code} {answer.text}, request {found}")

    def _failed(self, why: str) -> None:
        self.failures.append(f"{datetime.now(UTC):%H:%M:%S.%f} {why}")


@contextmanager
def load(stack: Composed) -> Iterator[CallerAnswers]:
    """Send mails and tasks through the proxy, over a connection that is kept and new ones, for the block."""
    answers, is_over = CallerAnswers(), threading.Event()
    bodies = (("/v1/emails", letter("upgraded")), ("/v1/tasks", {"operation": "echo"}))

    def send(kept: httpx.Client) -> None:
        while not is_over.wait(0.1):
            for path, body in bodies:
                answers.ask(kept, path, body)
                with stack.secure as new:
                    answers.ask(new, path, body)

    with ThreadPoolExecutor(1) as pool, stack.secure as kept:
        sending = pool.submit(send, kept)
        try:
            yield answers
        finally:
            is_over.set()
        sending.result()


def check_done(stack: Composed, answers: CallerAnswers) -> None:
    """Assert that no request failed, and that all work that was accepted is done."""
    with stack.telling(*SERVICES, "gateway-2", "proxy", "postgres"):
        assert len(answers.paths) > 100
        assert answers.failures == []
    with stack.secure as api:
        assert ends(api, answers.paths) == {"delivered", "completed"}


def kill(stack: Composed, *services: str) -> None:
    """End the first process of each container from outside, as a lack of memory would."""
    for service in services:
        os.kill(stack.inspect(service)["State"]["Pid"], signal.SIGKILL)
