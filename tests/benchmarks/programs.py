"""Programs that run for the length of a block and leave no process behind, however the block ends."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress

import httpx
import psutil

from native.errors import MissingProgramError
from native.ports import HOST, free_port
from native.process import kill
from support.waiting import until

_LINES_SHOWN = 20


@asynccontextmanager
async def program(
    *command: str, environment: Mapping[str, str], user: str = "", patience_s: float = 10
) -> AsyncIterator[int]:
    """Run a program; yield its process id. What it has started ends with it.

    The kernel stops it when this process is killed. Its output is shown when the block fails. `user` is for
    programs that root must not run; one that does not end within `patience_s` is killed.
    """
    identity: tuple[str, ...] = ()
    if user and os.geteuid() == 0:
        identity = ("--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups")
    with tempfile.TemporaryFile() as output:
        child = await asyncio.create_subprocess_exec(
            *(_path_of("setpriv"), "--pdeathsig", "TERM", *identity, "--", *command),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield child.pid
        except Exception:
            output.seek(0)
            lines = output.read().decode(errors="replace").splitlines()[-_LINES_SHOWN:]
            sys.stderr.write("\n".join((f"The last output of {' '.join(command)}:", *lines, "")))
            raise
        finally:
            with suppress(psutil.NoSuchProcess):
                running = psutil.Process(child.pid)
                await kill([running, *running.children(recursive=True)], patience_s=patience_s)
            await child.wait()


@asynccontextmanager
async def python(*arguments: str, **variables: str) -> AsyncIterator[int]:
    """Run a module of ours or of a peer (`-m …`), with `variables` beside the environment of this process."""
    paths = ":".join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    async with program(sys.executable, *arguments, environment=environment) as pid:
        yield pid


@asynccontextmanager
async def sink() -> AsyncIterator[int]:
    """Run `smtp-sink`, which takes every mail; yield its port."""
    port = free_port()
    command = (_path_of("smtp-sink"), f"{HOST}:{port}", "1000")
    async with program(*command, environment={"PATH": os.environ["PATH"]}, user="nobody"):
        yield port


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds of these processes so far, and of those that work for them."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system
    return total


async def answering(url: str, *, headers: Mapping[str, str] = {}, timeout_s: float = 60) -> None:
    """Return when `url` answers with a status of success."""
    async with httpx.AsyncClient(headers=headers) as client:

        async def is_there() -> bool:
            with suppress(httpx.TransportError):
                return (await client.get(url)).is_success
            return False

        await until(is_there, timeout_s=timeout_s, what=lambda: f"{url} answers")


def _path_of(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/libexec/postfix")
    if found is None:
        raise MissingProgramError(f"{name} is missing: run `make setup`")
    return found
