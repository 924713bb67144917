"""Daily operations on a stack as `make run` starts it: rotate, back up, lose everything, restore."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from native import leftovers
from native.directories import RunDirectory
from native.ports import VARIABLES, Ports
from native.settings import NativeSettings
from support import pasted
from upkeep.installation import SERVICES, query, session
from upkeep.native_stack import NativeStack

pytestmark = pytest.mark.timeout(400)

DEPLOY = str(Path(__file__).resolve().parents[3] / "deploy")
ENDED = ("delivered", "completed")


@dataclass
class Native:
    """`python -m native run` in a directory of its own, and the verbs on it."""

    directory: Path
    ports: Ports
    process: subprocess.Popen[str] | None = None

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.directory)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def key(self) -> str:
        return self.run.api_key.read_text().strip()

    def environment(self, **variables: str) -> dict[str, str]:
        ports = {VARIABLES[name]: str(number) for name, number in self.ports.numbered().items()}
        return os.environ | ports | {"PYTHONPATH": DEPLOY} | variables

    def start(self) -> None:
        command = [sys.executable, "-m", "native", "--run-dir", str(self.directory), "run"]
        (key_file := self.directory.parent / "backup-key").write_text("a passphrase of the tests\n")
        environment = self.environment(BACKUP_KEY_FILE=str(key_file))
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline = time.monotonic() + 90
        while not self.run.ready.exists():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=90)
            self.process = None

    def native(self, *words: str) -> str:
        """Return the output of a command of the native run."""
        command = [sys.executable, "-m", "native", "--run-dir", str(self.directory), *words]
        done = subprocess.run(command, env=self.environment(), check=True, capture_output=True, text=True)
        return done.stdout

    def upkeep(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Return the output of a verb, which must end with `code`."""
        words = [sys.executable, "-m", "upkeep", "--way", "native", "--run-dir", str(self.directory)]
        done = subprocess.run(
            [*words, *arguments],
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@dataclass
class UpkeepLoad:
    """Sends mails and tasks all the time, and records what was accepted, and when."""

    native: Native
    accepted: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _ends: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> UpkeepLoad:
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(timeout=30)

    def _send(self) -> None:
        with httpx.Client(base_url=self.native.url, timeout=20) as client:
            for number in range(100_000):
                if self._ends.wait(0.1):
                    return
                mail = {"to": ["ann@example.com"], "subject": f"load {number}", "text": "x"}
                asked: Any = ("/v1/emails", mail) if number % 2 else ("/v1/tasks", {"operation": "echo"})
                try:
                    answer = client.post(
                        asked[0], json=asked[1], headers={"Authorization": f"Bearer {self.native.key}"}
                    )
                except httpx.TransportError:
                    # The only gateway starts again; whoever gets no answer asks again.
                    continue
                if answer.status_code == 202:
                    self.accepted.append((time.time(), f"{asked[0]}/{answer.json()['id']}"))
                # While the only gateway starts again it says so (503): nothing was accepted.
                elif answer.status_code not in (401, 503):
                    self.failures.append(f"{answer.status_code} {answer.text}")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Native]:
    found = Native(tmp_path_factory.mktemp("upkeep") / ".run", Ports.free())
    found.start()
    try:
        yield found
    finally:
        found.stop()
        found.native("reset")


def settled(native: Native, paths: list[str]) -> dict[str, str]:
    """Return the statuses of all accepted work, once all has ended or a minute has passed."""
    found: dict[str, str] = {}
    deadline = time.monotonic() + 60
    with httpx.Client(base_url=native.url, headers={"Authorization": f"Bearer {native.key}"}) as client:
        while time.monotonic() < deadline:
            for path in (path for path in paths if found.get(path) not in ENDED):
                answer = client.get(path)
                found[path] = answer.json().get("status", str(answer.status_code))
            if set(found.values()) <= set(ENDED):
                break
            time.sleep(0.3)
    return {path: status for path, status in found.items() if status not in ENDED}


def test_the_lines_of_the_readme_run_as_they_are_pasted(native: Native, tmp_path: Path) -> None:
    addresses = {"127.0.0.1:8080": f"127.0.0.1:{native.ports.gateway}"}
    first, socket = pasted.blocks("README.md", below="A first minute")
    said = pasted.run(first, tmp_path, key=native.key, addresses=addresses)
    assert '"symbol":"AAPL"' in said
    assert "good morning" in said
    said = pasted.run(socket, tmp_path, key=native.key, addresses=addresses)
    assert "quotes:AAPL" in said
    assert '"text":"hi"' in said
    assert httpx.get(f"http://127.0.0.1:{native.ports.mailbox_http}/").status_code == 200


def test_secrets_are_rotated_under_load_and_nothing_is_lost(native: Native) -> None:
    old = native.key
    with UpkeepLoad(native) as load:
        for name in ("postgres-emailer", "rabbitmq-email", "api-key"):
            assert "the old one" in native.upkeep("rotate", name)
    assert native.key != old
    assert httpx.get(f"{native.url}/v1/me", headers={"Authorization": f"Bearer {old}"}).status_code == 401
    assert load.failures == []
    assert len(load.accepted) > 20
    assert settled(native, [path for _, path in load.accepted]) == {}


@pytest.mark.long
def test_every_secret_is_rotated_under_load(native: Native) -> None:
    with UpkeepLoad(native) as load:
        for name in ("postgres", "rabbitmq", "pepper"):
            native.upkeep("rotate", name)
        native.upkeep("rotate", "smtp-password", NEW_SECRET="given by the relay")
        native.upkeep("rotate", "pepper", "--finish")
    assert load.failures == []
    assert settled(native, [path for _, path in load.accepted]) == {}


def return_path_of_a_mail(native: Native, client: httpx.Client, subject: str) -> str:
    """Send a mail, and return the envelope sender that it came to the mailbox with."""
    mail = client.post("/v1/emails", json={"to": ["ann@example.com"], "subject": subject, "text": "x"})
    assert settled(native, [f"/v1/emails/{mail.json()['id']}"]) == {}
    mailbox = f"http://127.0.0.1:{native.ports.mailbox_http}/api/v1"
    listed = httpx.get(f"{mailbox}/search", params={"query": f'subject:"{subject}"'}).json()["messages"]
    return str(httpx.get(f"{mailbox}/message/{listed[0]['ID']}").json()["ReturnPath"])


def test_a_mail_that_left_before_a_rotation_may_come_back_until_the_overlap_ends(native: Native) -> None:
    name, headers = "email-secrets-key", {"Authorization": f"Bearer {native.key}"}
    with httpx.Client(base_url=native.url, headers=headers, timeout=20) as client:

        def bounced(recipient: str) -> int:
            return client.post(
                "/v1/inbound/bounces",
                params={"recipient": recipient},
                content=b"Subject: away\r\n\r\nI am not here.\r\n",
                headers={"Content-Type": "message/rfc822"},
            ).status_code

        assert client.post("/v1/domains", json={"name": "rotated.example"}).status_code == 201
        before = return_path_of_a_mail(native, client, "before the rotation")
        assert "may bounce until" in native.upkeep("rotate", name)
        assert "is being rotated already" in native.upkeep("rotate", name, code=1)
        assert "--finish --now" in native.upkeep("rotate", name, "--finish", code=1)
        after = return_path_of_a_mail(native, client, "after the rotation")
        assert [bounced(before), bounced(after)] == [200, 200]
        assert "the old one is removed" in native.upkeep("rotate", name, "--finish", "--now")
        assert [bounced(before), bounced(after)] == [404, 200]


def test_a_command_with_a_wrong_argument_says_what_is_wrong(native: Native, tmp_path: Path) -> None:
    assert "There is no secret 'nonsense'; the secrets are: api-key" in native.upkeep(
        "rotate", "nonsense", code=1
    )
    for name in ("smtp-password", "alpaca-secret-key"):
        assert "NEW_SECRET=" in native.upkeep("rotate", name, code=1)
    assert "The pepper is not being rotated" in native.upkeep("rotate", "pepper", "--finish", code=1)
    assert "email-secrets-key is not being rotated" in native.upkeep(
        "rotate", "email-secrets-key", "--finish", code=1
    )
    nobody = Native(tmp_path / ".run", native.ports)
    assert "start the stack first" in nobody.upkeep("rotate", "api-key", code=1)
    assert "start the stack first" in nobody.upkeep("support-bundle", code=1)
    assert not nobody.directory.exists()
    assert "There is no file" in nobody.upkeep("restore", str(tmp_path / "missing.tar"), code=1)


def test_the_footprint_names_every_program_and_the_sum(native: Native) -> None:
    lines = [line.split() for line in native.native("footprint", "--seconds", "1").splitlines()]
    found = {words[0]: float(words[1]) for words in lines}
    assert {"gateway", "emailer", "postgres", "beam.smp", "prometheus", "runner"} <= found.keys()
    assert found.pop("all") == pytest.approx(sum(found.values()), abs=1)


def test_a_support_bundle_contains_diagnostics_and_no_secret(native: Native) -> None:
    file = Path(native.upkeep("support-bundle").strip())
    assert file.parent == native.directory / "support"
    with tarfile.open(file) as found:
        parts = {one.name: found.extractfile(one) for one in found.getmembers()}
        texts = {name.partition("/")[2]: part.read().decode() for name, part in parts.items() if part}
    assert '"EMAIL_SMTP_PORT"' in texts["settings.json"]
    assert "gateway: 200" in texts["readiness.txt"]
    assert "email.send\t0" in texts["queues.txt"]
    assert "emailer" in texts["database.txt"]
    versions = json.loads(texts["versions.json"])
    assert versions["postgresql"][0].isdigit()
    assert "asyncpg" in versions["packages"]
    assert {f"errors/{name}.log" for name in SERVICES} <= texts.keys()
    whole = "".join(texts.values())
    files = [native.run.api_key, *native.run.secrets.iterdir()]
    addresses = ("postgres-dsn", "rabbitmq-url")
    secrets = [file.read_text() for file in files if not file.name.startswith(addresses)]
    assert not any(secret in whole for secret in secrets if secret)


@contextmanager
def attachments_waiting(native: Native) -> Iterator[str]:
    """Yield the path of a mail whose attachment email cannot take during the block."""
    installation = NativeStack(native.run, NativeSettings())
    mail = {"to": ["ann@example.com"], "subject": "waits with its attachment", "text": "x"}
    file = {"filename": "a.txt", "content": base64.b64encode(b"It waited.\n").decode()}
    headers = {"Authorization": f"Bearer {native.key}"}
    with session(installation, "emailer") as locked:
        locked.ask("BEGIN")
        # Others may read it, the backup as well.
        locked.ask("LOCK TABLE uploads IN SHARE MODE")
        body = {**mail, "attachments": [file]}
        answer = httpx.post(f"{native.url}/v1/emails", json=body, headers=headers, timeout=20)
        assert answer.status_code == 202, answer.text
        yield f"/v1/emails/{answer.json()['id']}"
        # It was still there when the backup had been made.
        assert query(installation, "gateway", "SELECT count(*) FROM waiting_parcels;") == "1"


def task_of(client: httpx.Client) -> str:
    """Ask for a backup; return the path of the task."""
    answer = client.post("/v1/tasks", json={"operation": "database.backup", "payload": {}})
    assert answer.status_code == 202, answer.text
    return f"/v1/tasks/{answer.json()['id']}"


def agent_of(native: Native) -> psutil.Process:
    """Return the process of the agent, once it has written something of a backup."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any((native.directory.parent / "backups").glob(".making-*/*")):
            found = leftovers.find(native.directory.resolve())
            return next(one for one in found if "backup-agent" in one.cmdline())
        time.sleep(0.1)
    raise AssertionError(native.run.log("backup").read_text())


def test_an_agent_that_is_killed_leaves_nothing_for_a_backup_and_the_next_request_is_served(
    native: Native,
) -> None:
    folder = native.directory.parent / "backups"
    headers = {"Authorization": f"Bearer {native.key}"}
    with httpx.Client(base_url=native.url, headers=headers, timeout=20) as client:
        interrupted = task_of(client)
        agent_of(native).kill()
        deadline = time.monotonic() + 30
        while not (attempts := client.get(interrupted).json()["failed_attempts"]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert attempts[0]["code"] == "backup-failed"
        assert "ended before the backup was complete" in attempts[0]["detail"]
        assert list(folder.glob("tickwire-*")) == []
        assert client.post(f"{interrupted}/cancel").is_success
        assert settled(native, [task_of(client)]) == {}
    (file,) = folder.iterdir()
    assert file.name.startswith("tickwire-")


def test_a_key_without_admin_cannot_ask_for_a_backup(native: Native) -> None:
    headers = {"Authorization": f"Bearer {native.key}"}
    with httpx.Client(base_url=native.url, headers=headers, timeout=20) as client:
        scopes = ["batches:write", "schedules:write"]
        less = client.post("/v1/api-keys", json={"name": "less", "scopes": scopes}).json()["key"]
        wanted: dict[str, Any] = {"operation": "database.backup", "payload": {}}
        for route, body in (
            ("/v1/tasks", wanted),
            ("/v1/schedules", {"name": "less", "cron": "0 3 * * *", "template": wanted}),
        ):
            refused = client.post(route, json=body, headers={"Authorization": f"Bearer {less}"})
            assert (refused.status_code, "admin" in refused.json()["detail"]) == (403, True)


def test_a_backup_by_command_removes_older_ones_and_an_upgrade_may_go_ahead(
    native: Native, tmp_path: Path
) -> None:
    (older := tmp_path / "tickwire-20200101T000000Z.tar").touch()
    said = native.upkeep("backup", "--folder", str(tmp_path), "--keep", "1")
    (file,) = tmp_path.glob("tickwire-*")
    assert f"removed {older.name}" in said
    assert f"{file}: {file.stat().st_size:,} bytes, not encrypted" in said
    assert "Go ahead" in native.upkeep("upgrade-check")


def test_the_lines_of_the_guide_make_a_backup_under_load_that_restores_everything_after_its_destruction(
    native: Native, tmp_path: Path
) -> None:
    headers = {"Authorization": f"Bearer {native.key}"}
    addresses = {"127.0.0.1:8080": f"127.0.0.1:{native.ports.gateway}"}
    with (
        httpx.Client(base_url=native.url, headers=headers, timeout=20) as client,
        UpkeepLoad(native) as load,
        attachments_waiting(native) as waiting,
    ):
        time.sleep(1)
        began = time.time()
        (lines,) = pasted.blocks("docs/guides/backup.md", below="In the background")
        said = pasted.run(lines, tmp_path, key=native.key, addresses=addresses)
        assert '"name":"nightly backup"' in said
        tasks = client.get("/v1/tasks", params={"operation": "database.backup"}).json()["data"]
        path = f"/v1/tasks/{tasks[0]['id']}"
        assert settled(native, [path]) == {}
        result = client.get(path).json()["result"]
        during = time.time()
    # It was accepted all the time.
    assert len([at for at, _ in load.accepted if began < at < during]) > 20
    assert load.failures == []
    file = native.directory.parent / "backups" / result["file"]
    assert (file.stat().st_size, result["is_encrypted"]) == (result["bytes"], True)
    assert not any(entry.name.startswith(".") for entry in file.parent.iterdir())

    key_file = native.directory.parent / "backup-key"
    native.stop()
    native.native("reset")
    assert "is encrypted" in native.upkeep("restore", str(file), code=1)
    native.upkeep("restore", str(file), BACKUP_KEY_FILE=str(key_file))
    native.start()
    accepted = [path for at, path in load.accepted if at < began]
    # The task was at work when its backup was taken; now it makes one of the restored stack.
    assert settled(native, [path, waiting, *accepted]) == {}
    assert result["file"] not in httpx.get(f"{native.url}{path}", headers=headers).text
    search = f"http://127.0.0.1:{native.ports.mailbox_http}/api/v1/search"
    (arrived,) = httpx.get(search, params={"query": 'subject:"waits with its attachment"'}).json()["messages"]
    assert arrived["Attachments"] == 1
