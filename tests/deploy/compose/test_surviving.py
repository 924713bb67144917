"""The real containers after a kill, a stop, a rotation or a restore: nothing accepted is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.deployment import previous_images, verbs
from support.deployment.accepted import accept, ended, letter, post, subjects
from support.deployment.composed import REPOSITORY, SERVICES, Composed, until
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
        ends = [ended(api, path) for path in ids]
    assert {end["status"] for end in ends} == {"delivered", "completed"}
    arrived = {subject for subject in subjects(stack) if subject.startswith(mark)}
    assert len(arrived) == len(ids) - 1


def test_secrets_are_rotated_in_server_file_and_container(stack: Composed, upkeep: ComposeStack) -> None:
    old = stack.key
    said: list[str] = []
    for name in ("api-key", "postgres-emailer", "rabbitmq-email"):
        rotation.rotate(upkeep, name, new=None, finish=False, say=said.append)
    assert len(said) == 3
    assert stack.key != old
    with stack.api as api:
        mail = post(api, "/v1/emails", letter("after the rotation"))
        assert ended(api, f"/v1/emails/{mail['id']}")["status"] == "delivered"


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
        assert {ended(api, path)["status"] for path in before} == {"delivered", "completed"}
        assert api.get(replaced).status_code == 404


def test_clients_of_the_proxy_do_not_notice_a_rollback_and_an_upgrade(
    stack: Composed, previous: dict[str, str]
) -> None:
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
        stack.up()
    assert all(source.startswith(previous_images.FOLDER) for source in sources), sources
    assert {service for service in before if before[service] == meanwhile[service]} == {"proxy"}
    assert stack.python("gateway", previous_images.WHERE).startswith("/opt/tickwire/")
    assert len(answers.paths) > 100
    assert answers.failures == []
    with stack.secure as api:
        assert {ended(api, path)["status"] for path in answers.paths} == {"delivered", "completed"}


@pytest.fixture
def previous(stack: Composed, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the environment in which compose takes images with the code of the release before."""
    images = [f"localhost/tickwire/{service}:{stack.tag}" for service in SERVICES]
    with previous_images.built(stack.engine, images, tmp_path):
        yield {**stack.engine.environment, "TICKWIRE_TAG": f"{stack.tag}-previous"}


def test_a_stopped_service_drains_and_exits_cleanly(stack: Composed) -> None:
    stack.compose("stop", *SERVICES)
    codes = {service: stack.inspect(service)["State"]["ExitCode"] for service in SERVICES}
    stack.up()
    assert codes == dict.fromkeys(SERVICES, 0)


def test_up_reports_a_service_that_cannot_become_ready(stack: Composed) -> None:
    broken = replace(stack.engine, environment={**stack.engine.environment, "EMAIL_SMTP_TLS": "perhaps"})
    with pytest.raises(subprocess.CalledProcessError):
        broken.docker("compose", "up", "--wait", "--wait-timeout", "60", "--no-deps", "email")
    assert "EMAIL_SMTP_TLS" in stack.compose("logs", "--tail", "20", "email")
    stack.up()


def test_the_data_survives_down_and_up(stack: Composed) -> None:
    with stack.api as api:
        path = f"/v1/emails/{post(api, '/v1/emails', letter('kept'))['id']}"
        assert ended(api, path)["status"] == "delivered"
    stack.make("down")
    assert stack.compose("ps", "--all", "--quiet").split() == []
    stack.up()
    with stack.api as api:
        assert api.get(path).json()["status"] == "delivered"


@dataclass
class Answers:
    """The answers to callers behind the proxy: the paths of accepted work, and every failed answer."""

    paths: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ask(self, api: httpx.Client, path: str, body: dict[str, Any]) -> None:
        try:
            answer = api.post(path, json=body)
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
            return
        if answer.status_code == 202:
            self.paths.append(f"{path}/{answer.json()['id']}")
        else:
            self.failures.append(f"{answer.status_code} {answer.text}")


@contextmanager
def load(stack: Composed) -> Iterator[Answers]:
    """Send mails and tasks through the proxy, over a connection that is kept and new ones, for the block."""
    answers, is_over = Answers(), threading.Event()
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


def kill(stack: Composed, *services: str) -> None:
    """End the first process of each container from outside, as a lack of memory would."""
    for service in services:
        os.kill(stack.inspect(service)["State"]["Pid"], signal.SIGKILL)
