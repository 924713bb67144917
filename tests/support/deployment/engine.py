"""A Docker engine for the tests: the machine's own where it can pull images, otherwise a private one.

The private engine has its own socket, data and process id file, so the images tagged there with official
names (`stand_ins.py`) never get among anybody's own. It needs root; what it is made of comes from Debian's
packages. Nothing of it runs after the block, and its network rules are taken back.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CACHE = Path("/var/cache/tickwire-tests")
_STATE = Path("/run/tickwire-tests")
_PLUGINS = CACHE / "docker-config" / "cli-plugins"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Where Linux shares the processors among groups of processes by the older of its two ways.
_GROUPS = Path("/sys/fs/cgroup/cpu")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_START_TIMEOUT_S = 30
_TURN_TIMEOUT_S = 240


class NoEngine(Exception):
    """No Docker engine can be used here; the text says why."""


@dataclass(frozen=True)
class Engine:
    """An engine and how to talk to it; `stand_ins` says that public images cannot be pulled."""

    environment: dict[str, str]
    stand_ins: bool

    def docker(self, *arguments: str, timeout_s: float = 120) -> str:
        """Return the output of `docker <arguments>`. Raise `subprocess.CalledProcessError`."""
        done = subprocess.run(
            ["docker", *arguments], env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode:
            sys.stderr.write(f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}\n")
        done.check_returncode()
        return done.stdout


@contextmanager
def running() -> Iterator[Engine]:
    """Yield an engine for the block. Raises `NoEngine` with the reason when there cannot be one."""
    own = Engine(dict(os.environ), stand_ins=False)
    if _answers(own):
        if not _pulls(own):
            raise NoEngine("the running Docker engine cannot pull images, and must not get stand-ins")
        yield own
        return
    if os.geteuid() != 0:
        raise NoEngine("no Docker engine runs, and only root could start one")
    with _turn():
        _install()
        with _daemon() as private:
            yield private


def _answers(engine: Engine) -> bool:
    if shutil.which("docker") is None:
        return False
    return _succeeds(engine, "docker", "info", timeout_s=10)


def _pulls(engine: Engine) -> bool:
    return _succeeds(engine, "docker", "pull", "--quiet", "memcached:1.6.39", timeout_s=60)


def _succeeds(engine: Engine, *command: str, timeout_s: float) -> bool:
    try:
        done = subprocess.run(command, env=engine.environment, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _install() -> None:
    wanted = {"dockerd": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    if shutil.which("apt-get") is None:
        raise NoEngine("this is not a Debian: install Docker yourself")
    if missing:
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing)
    if not all((_PLUGINS / name).exists() for name in ("docker-compose", "docker-buildx")):
        _install_plugins()


def _install_plugins() -> None:
    """Install the plugins of Debian 13, single files that run here too: Debian 12 has an old compose."""
    work = CACHE / "apt"
    (work / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    _PLUGINS.mkdir(parents=True, exist_ok=True)
    sources = work / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYS}] {_mirror()} trixie main\n")
    options = [f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=/dev/null"]
    options += [f"Dir::State::lists={work / 'lists'}", "Acquire::Languages=none", "APT::Sandbox::User=root"]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    _run(*apt, "update")
    _run(*apt, "download", "docker-compose", "docker-buildx", cwd=work)
    for package in work.glob("docker-*.deb"):
        _run("dpkg-deb", "-x", str(package), str(work / "files"))
    for name in ("docker-compose", "docker-buildx"):
        shutil.copy2(work / "files" / "usr/libexec/docker/cli-plugins" / name, _PLUGINS / name)


def _mirror() -> str:
    """Return the mirror that this machine takes its own packages from."""
    wanted = ("--format", "$(SITE)", "Created-By: Packages", "Origin: Debian")
    found = subprocess.run(("apt-get", "indextargets", *wanted), capture_output=True, text=True, check=True)
    return next(site for site in found.stdout.split() if not site.endswith("-security"))


@contextmanager
def _turn() -> Iterator[None]:
    """Hold a lock: two engines cannot share the data, and two stacks are too much for the machine."""
    _STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + _TURN_TIMEOUT_S
    with (_STATE / "lock").open("w") as lock:
        while not _locked(lock.fileno()):
            if time.monotonic() > deadline:
                raise NoEngine("another run of these tests has the private engine")
            time.sleep(1)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _daemon() -> Iterator[Engine]:
    socket = _STATE / "docker.sock"
    environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(_PLUGINS.parent)}
    engine = Engine(environment, stand_ins=True)
    _end_left_over()
    before = _forwarding()
    if (_GROUPS / "cpu.shares").exists():
        # All containers together would get as much of the processors as one process beside them.
        (_GROUPS / "docker").mkdir(exist_ok=True)
        (_GROUPS / "docker/cpu.shares").write_text("16384")
    command = ["dockerd", "--data-root", str(CACHE / "docker"), "--exec-root", str(_STATE / "exec")]
    command += ["--pidfile", str(_STATE / "docker.pid"), "--host", f"unix://{socket}"]
    with (_STATE / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(engine, process)
        _sweep(engine)
        yield engine
    finally:
        process.terminate()
        process.wait(timeout=60)
        _take_back(*before)


def _end_left_over() -> None:
    """End the engine that a killed run has left: two engines cannot share the data."""
    pid_file = _STATE / "docker.pid"
    if not pid_file.exists():
        return
    with suppress(psutil.NoSuchProcess, ValueError):
        left = psutil.Process(int(pid_file.read_text()))
        if str(CACHE / "docker") in left.cmdline():
            left.terminate()
            left.wait(timeout=60)


def _wait(engine: Engine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is not None or not _answers(engine):
        if process.poll() is not None or time.monotonic() > deadline:
            log = (_STATE / "dockerd.log").read_text(errors="replace")
            raise NoEngine(f"dockerd did not start:\n{log[-2000:]}")
        time.sleep(0.2)


def _sweep(engine: Engine) -> None:
    """Remove what a run that was killed left behind: the engine has just started it again."""
    left = engine.docker("ps", "--all", "--quiet").split()
    if left:
        engine.docker("rm", "--force", "--volumes", *left)
    engine.docker("network", "prune", "--force")
    volumes = engine.docker("volume", "ls", "--quiet").split()
    if volumes:
        engine.docker("volume", "rm", "--force", *volumes)


def _forwarding() -> tuple[str, str]:
    """Return whether the machine passes on packets, and what it does with those that no rule names."""
    rules = subprocess.run(["iptables", "-S", "FORWARD"], capture_output=True, text=True, check=False).stdout
    return _FORWARDING.read_text().strip(), "DROP" if "-P FORWARD DROP" in rules else "ACCEPT"


def _take_back(passed_on: str, policy: str) -> None:
    _FORWARDING.write_text(passed_on)
    for command in (["iptables", "-P", "FORWARD", policy], ["ip", "link", "delete", "docker0"]):
        with suppress(OSError):
            subprocess.run(command, capture_output=True, check=False)


def _run(*command: str, cwd: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        raise NoEngine(f"{_shown(command)}: {error}") from error


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)[:200]
