"""The files of a PostgreSQL cluster: their place, their owner, their creation and repair."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import psutil

from native.directories import RunDirectory
from native.errors import MissingProgramError, NativeError

_INSTALLED = Path("/usr/lib/postgresql")
_INCLUDE = "\ninclude 'tickwire.conf'\n"
# Test databases are made and dropped by the thousand, which is files: on a disk that is half of their work.
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - what is in it has a name that nobody else takes
_ROOMY_BYTES = 8 << 30
_ACCESS = "host all all 127.0.0.1/32 scram-sha-256\n"
# In the run directory, where the cluster is outside it: the path of the run directory that it was made for.
_MADE_FOR = "postgres-made-for"


@dataclass(frozen=True)
class Cluster:
    """The files of one cluster. PostgreSQL refuses root, so for root another user owns and runs it."""

    run: RunDirectory
    temporary: bool = False

    @cached_property
    def user(self) -> str | None:
        """The user who runs the server; None means the current one."""
        if os.geteuid() != 0:
            return None
        known = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in known else "nobody"

    @cached_property
    def home(self) -> Path:
        """The folder of the cluster: below the run directory, or elsewhere if its user has no access.

        One that has data stays where it is. Raise `NativeError` if its user may not enter it any more.
        """
        wanted = self.run.data / "postgres"
        if self.user is None:
            return wanted
        may_enter = subprocess.run(self._as_user("test", "-x", str(wanted.parent))).returncode == 0
        if _has_data(wanted) and not may_enter:
            raise NativeError(
                f"The data of PostgreSQL is in {wanted}, which its user {self.user!r} cannot enter any more: "
                "let others pass through each folder above it (chmod o+x)."
            )
        is_elsewhere = _has_data(self._elsewhere) and not _has_data(wanted)
        return wanted if may_enter and not is_elsewhere else self._elsewhere

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / "cluster"

    @property
    def moved(self) -> bool:
        """Whether the cluster is outside the run directory."""
        return self.home == self._elsewhere

    @cached_property
    def binaries(self) -> Path:
        """The folder of the server's programs: of the version that created the data, else the newest."""
        version = self.data / "PG_VERSION"
        made_by = version.read_text().strip() if version.exists() else ""
        folders = sorted(
            _INSTALLED.glob(f"{made_by or '*'}/bin"), key=lambda folder: -float(folder.parent.name)
        )
        if folders:
            return folders[0]
        if made_by:
            raise MissingProgramError(
                f"{self.data} was created by PostgreSQL {made_by}: install that version, or remove the folder"
            )
        raise MissingProgramError("postgresql is not installed: run `make setup`")

    def settle(self, *, is_first: bool) -> str | None:
        """Have the folder elsewhere belong to this run directory; return what was set aside for that.

        The folder has its name from the path of the run directory, and follows one that was moved. What is
        there at the `is_first` start of a run directory is of a removed one, and nobody knows its password.
        """
        if self.user is None:
            return None
        note, root, here = self.run.data / _MADE_FOR, self.run.root, self._elsewhere
        before = Path(note.read_text()) if note.exists() else root
        is_moved = before != root and not before.exists()
        aside = None
        if _has_data(here) and (is_first or is_moved):
            aside = here.with_name(f"{here.name}-{int(here.stat().st_mtime)}")
            here.rename(aside)
        if is_moved and _has_data(self._named_after(before)):
            self._named_after(before).rename(here)
        if self.moved:
            note.write_text(str(root))
        return None if aside is None else str(aside)

    def create(self, *, superuser: str, password: str) -> None:
        """Create the cluster unless it exists; one left incomplete by a killed start is created again."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._hand_over(self.home)
        if (self.data / "PG_VERSION").exists():
            return
        draft = self.home / "cluster.new"
        shutil.rmtree(draft, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=self.home) as file:
            file.write(password)
            file.flush()
            self._hand_over(Path(file.name))
            self._initdb(draft, superuser, Path(file.name))
        draft.replace(self.data)

    def configure(self, settings: dict[str, str]) -> None:
        """Write the server's settings and its access rule: passwords only, from this machine only.

        They are appended to what initdb has determined for the machine, such as the type of shared memory.
        """
        lines = (f"{name} = '{value}'\n" for name, value in settings.items())
        (self.data / "tickwire.conf").write_text("".join(lines))
        (self.data / "pg_hba.conf").write_text(_ACCESS)
        main = self.data / "postgresql.conf"
        if _INCLUDE not in main.read_text():
            main.write_text(main.read_text() + _INCLUDE)

    def drop_stale_lock(self) -> None:
        """Remove `postmaster.pid` if its process is gone, or its id now belongs to another program."""
        lock = self.data / "postmaster.pid"
        if not lock.exists():
            return
        pid = int(lock.read_text().split()[0])
        with suppress(psutil.Error, OSError):
            if Path(psutil.Process(pid).cwd()) == self.data:
                return
        lock.unlink()

    def remove(self) -> None:
        """Remove the cluster if it is outside the run directory."""
        if self.moved:
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def _elsewhere(self) -> Path:
        return self._named_after(self.run.root)

    def _named_after(self, root: Path) -> Path:
        name = f"tickwire-{sha256(str(root).encode()).hexdigest()[:10]}"
        if not self.temporary:
            return Path("/var/lib") / name
        # Not by its free space: the answer must stay the same.
        is_roomy = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).total >= _ROOMY_BYTES
        return (_IN_MEMORY if is_roomy else Path(tempfile.gettempdir())) / name

    def _hand_over(self, path: Path) -> None:
        if self.user:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _initdb(self, draft: Path, superuser: str, password_file: Path) -> None:
        command = self._as_user(
            str(self.binaries / "initdb"),
            f"--pgdata={draft}",
            f"--username={superuser}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            *(("--no-sync",) if self.temporary else ()),
        )
        done = subprocess.run(
            command, cwd=self.home, env=self.run.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NativeError(f"initdb could not create {draft}:\n{done.stdout}{done.stderr}")

    def _as_user(self, *command: str) -> list[str]:
        if self.user is None:
            return list(command)
        group = str(pwd.getpwnam(self.user).pw_gid)
        return ["setpriv", "--reuid", self.user, "--regid", group, "--init-groups", "--", *command]


def _has_data(home: Path) -> bool:
    return (home / "cluster" / "PG_VERSION").exists()
