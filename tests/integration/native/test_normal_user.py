"""`make run` as a user without rights, in a checkout of this user's own: start, use, Ctrl-C, start again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest

from native import leftovers
from native.directories import RunDirectory
from native.ports import VARIABLES, Ports
from support.doubles import alpaca
from support.waiting import until

REPOSITORY = Path(__file__).resolve().parents[3]
USER = "nobody"
FOR_EVERYBODY = ("/tmp", "/var/tmp", "/dev/shm")

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


@pytest.fixture
def checkout() -> Iterator[Path]:
    """Yield a checkout that the user owns, with an environment of its own as the setup would make it."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user; the other tests have run as this one")
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    if not Path(python).exists():
        pytest.skip(f"there is no {python}, which every user may run and these packages were built for")
    # The temporary folders of pytest are closed to other users.
    with TemporaryDirectory(prefix="tickwire-user-") as name:
        folder = Path(name) / "tickwire"
        for part in ("deploy", "services", "docs"):
            shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("Makefile", ".env.example", "requirements.lock", "requirements-dev.lock"):
            shutil.copy(REPOSITORY / file, folder)
        subprocess.run([python, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        (packages,) = folder.glob(".venv/lib/python3*/site-packages")
        # What is installed for these tests, but the services and their kernel from the checkout.
        lines = [*folder.glob("services/*/src"), sysconfig.get_path("purelib")]
        (packages / "tests.pth").write_text("".join(f"{line}\n" for line in lines))
        (folder / ".venv/.tickwire-run").write_text(_fingerprint(folder))
        Path(name).chmod(0o755)
        subprocess.run(["chown", "--recursive", f"{USER}:", folder], check=True)
        yield folder


def _fingerprint(folder: Path) -> str:
    """Return the fingerprint that `setup.sh` compares before it installs Python packages."""
    files = [folder / "requirements.lock", *sorted(folder.glob("services/*/pyproject.toml"))]
    return hashlib.sha256(f"{folder}\n".encode() + b"".join(file.read_bytes() for file in files)).hexdigest()


@asynccontextmanager
async def make_run(folder: Path, ports: Ports) -> AsyncIterator[list[str]]:
    """Run `make run` as the user, and press Ctrl-C at the end of the block; the list has its output then."""
    numbers = {VARIABLES[name]: str(number) for name, number in ports.numbered().items()}
    output: list[str] = []
    with (folder.parent / "output").open("w+") as terminal:
        making = await asyncio.create_subprocess_exec(
            "make",
            "run",
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **numbers},
            user=USER,
            group=pwd.getpwnam(USER).pw_gid,
            extra_groups=[],
            stdout=terminal,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ready = RunDirectory(folder / ".run").ready
            await until(lambda: ready.exists() or making.returncode is not None, timeout_s=60)
            assert making.returncode is None
            yield output
            os.killpg(making.pid, signal.SIGINT)
            async with asyncio.timeout(60):
                await making.wait()
        finally:
            if making.returncode is None:
                os.killpg(making.pid, signal.SIGKILL)
                await making.wait()
            terminal.seek(0)
            output.extend(terminal.read().splitlines())
            print(*output, sep="\n")


def belongings(folder: Path) -> list[str]:
    """Return the user's processes of `folder`, and the user's files in places open to everybody."""
    uid = pwd.getpwnam(USER).pw_uid
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    found = [command for command in commands if str(folder) in command]
    for entry in chain.from_iterable(map(os.scandir, FOR_EVERYBODY)):
        with suppress(FileNotFoundError):
            found += [entry.path] if entry.stat(follow_symlinks=False).st_uid == uid else []
    return found


async def rotate(folder: Path, secret: str, new: str) -> None:
    """Call `NEW_SECRET=<new> make rotate SECRET=<secret>` as the user."""
    making = await asyncio.create_subprocess_exec(
        *("make", "rotate", f"SECRET={secret}"),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NEW_SECRET": new},
        user=USER,
        group=pwd.getpwnam(USER).pw_gid,
        extra_groups=[],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await making.communicate()
    assert making.returncode == 0, said.decode()


async def test_make_run_works_for_a_user_without_rights_and_a_second_start_keeps_data_and_secrets(
    checkout: Path,
) -> None:
    run, ports, before = RunDirectory(checkout / ".run"), Ports.free(), belongings(checkout)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.gateway}", timeout=20) as gateway:
        async with make_run(checkout, ports) as said:
            gateway.headers["Authorization"] = f"Bearer {run.api_key.read_text()}"
            assert (await gateway.get("/v1/stocks/AAPL")).json()["symbol"] == "AAPL"
            task = (await gateway.post("/v1/tasks", json={"operation": "echo"})).json()["id"]
            assert {process.username() for process in leftovers.find(run.root)} == {USER}
            assert (run.data / "postgres/cluster/PG_VERSION").owner() == USER
            await rotate(checkout, "alpaca-secret-key", alpaca.SECRET)
        assert any("Tickwire is ready" in line for line in said)
        assert any("stopped; the data stays in" in line for line in said)
        assert leftovers.find(run.root) == []
        assert belongings(checkout) == before

        async with alpaca.running() as provider:
            provider.bars["AAPL"] = [alpaca.bar("2024-01-02", c=11)]
            chosen = {
                "PROVIDERS": "embedded,alpaca",
                "ALPACA_URL": provider.url,
                "ALPACA_KEY_ID": alpaca.KEY_ID,
            }
            lines = [f"STOCK_DATA_{name}={value}\n" for name, value in chosen.items()]
            (checkout / ".env").write_text("".join(lines))
            async with make_run(checkout, ports):
                assert (await gateway.get(f"/v1/tasks/{task}")).status_code == 200
                # The double knows no other key than the one that `make rotate` brought.
                days = {"start": "2024-01-02", "end": "2024-01-03"}
                bars = (await gateway.get("/v1/stocks/AAPL/bars", params=days)).json()
                assert (bars["source"], bars["data"][0]["c"]) == ("alpaca", 11)
        assert leftovers.find(run.root) == []
