"""Backup and restore: one archive with a consistent state of the four databases, and what belongs to it.

The state is taken when no message is in transit between the services: their outboxes are held (requests are
still accepted), the broker's queues drain, and then a snapshot of each database is opened. Messages that wait
in the broker for a retry are copied. The archive also has the pepper, without which no API key works, and the
secret without which no DKIM key can be decrypted.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contracts.topology import TOPOLOGIES
from upkeep import archive, sealing, turns, upgrades
from upkeep.commands import Session
from upkeep.errors import NOTHING_RUNS, UpkeepError, variable_wins
from upkeep.installation import DATABASES, Installation, query, session

Say = Callable[[str], None]

# The advisory lock that outbox relays take before they publish (chassis/queries/outbox.sql).
HOLD = 84251
# The advisory lock in batch-processor's database that is held while a backup is made.
AT_WORK = 84252
# The broker updates the message counts of quorum queues every 5 seconds.
_COUNTED_S = 6.0
_DRAINED_WITHIN_S = 120.0
_KEPT = (
    *("previous-pepper", "pepper", "next-pepper"),
    *("email-previous-secrets-key", "email-secrets-key", "api-key"),
)
_REPOSITORY = Path(__file__).resolve().parents[2]
_MESSAGES = Path(__file__).with_name("broker_messages.py")
_VHOST = "tickwire"
# The variables that the commands read, from the environment or from `.env`.
VARIABLES = ("BACKUP_FOLDER", "BACKUP_KEEP", "BACKUP_KEY", "BACKUP_KEY_FILE")
_DRAFT = ".making-"
# The end of the name of a database while it is being restored.
_BESIDE = "_restoring"


@dataclass(frozen=True)
class BackupOptions:
    """The folder of the backups, the passphrase that encrypts them, and the number of newest ones to keep."""

    folder: Path
    passphrase: str | None
    keep: int


def back_up(installation: Installation, options: BackupOptions, *, say: Say) -> Path:
    """Write a backup and return its file. Raise `UpkeepError` while another one is being made."""
    if not installation.is_running:
        raise UpkeepError(NOTHING_RUNS)
    with session(installation, DATABASES["batch-processor"]) as own:
        if own.ask(f"SELECT pg_try_advisory_lock({AT_WORK})") != "t":
            raise UpkeepError("Another backup is being made: wait until it is complete.")
        return write(installation, options, say=say)


def write(installation: Installation, options: BackupOptions, *, say: Say) -> Path:
    """Write a backup, remove all but the newest ones, and return its file. The caller holds `AT_WORK`."""
    folder = options.folder
    if options.passphrase is not None:
        # Before anything has to wait for a backup that cannot be encrypted.
        sealing.require_length(options.passphrase)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for unfinished in folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(unfinished)
    began = datetime.now(UTC)
    # A pepper that was replaced meanwhile would not be that of the keys in the snapshots.
    with turns.reading(installation), TemporaryDirectory(prefix=_DRAFT, dir=folder) as name:
        work = Path(name)
        with ExitStack() as held:
            sessions = {
                database: held.enter_context(session(installation, database))
                for database in DATABASES.values()
            }
            with _quiet(installation, sessions):
                snapshots = {database: _snapshot(one) for database, one in sessions.items()}
                (work / "messages.ndjson").write_text(_ask_broker(installation, messages=None))
            say("snapshots of databases and messages are taken; publishing resumes")
            for database, snapshot in snapshots.items():
                format_ = ("--format=custom", f"--snapshot={snapshot}", "--no-owner", "--no-privileges")
                installation.postgres("pg_dump", *format_, database=database).write(work / f"{database}.dump")
                say(f"{database}: {(work / f'{database}.dump').stat().st_size:,} bytes")
        (work / "secrets.json").write_text(json.dumps({name: installation.secret(name) for name in _KEPT}))
        statement = "SELECT package || '/' || name FROM migrations ORDER BY 1;"
        schema = {
            database: query(installation, database, statement).split() for database in DATABASES.values()
        }
        packed = work / "packed"
        packed.mkdir()
        made = archive.pack(work, packed, began=began, schema=schema)
        if options.passphrase is not None:
            clear, made = made, made.with_name(made.name + sealing.SUFFIX)
            sealing.seal(clear, made, options.passphrase)
        made.chmod(0o600)
        # The last step: an interruption leaves no incomplete or unencrypted file that looks like a backup.
        made = made.replace(folder / made.name)
    query(
        installation,
        "gateway",
        f"INSERT INTO backups (started_at, bytes) VALUES ('{began.isoformat()}', {made.stat().st_size});",
    )
    for old in archive.listed(folder)[options.keep :]:
        old.unlink()
        say(f"removed {old.name}; the newest {options.keep} backups are kept")
    return made


def restore(installation: Installation, file: Path, *, passphrase: str | None, say: Say) -> None:
    """Restore the state that a backup holds; the current data of the installation is lost.

    The services must not run natively; in containers they are stopped and started again.
    """
    with TemporaryDirectory(prefix="tickwire-restore-") as name:
        work = Path(name)
        try:
            manifest = archive.unpack(_opened(file, work, passphrase), work)
        except OSError as error:
            if error.filename == str(file):
                raise
            raise UpkeepError(
                f"{file} could not be unpacked into {work}: {error.strerror}. "
                "TMPDIR=<folder> chooses another place."
            ) from error
        say(f"backup of {manifest['made_at']}: all checksums match")
        for database in DATABASES.values():
            known = set(upgrades.migrations(_REPOSITORY, database))
            if later := [name for name in manifest["schema"].get(database, ()) if name not in known]:
                say(f"{database}: of a later release, and this must be the one before it: {' '.join(later)}")
        secrets = json.loads((work / "secrets.json").read_text())
        for name, text in secrets.items():
            if text != installation.secret(name) and (variable := installation.set_by_hand(name)):
                raise variable_wins(variable)
        with installation.servers_only():
            reason = _why_unreadable(installation, work)
            if reason is None:
                _put_back(installation, work, secrets, say=say)
        # Only here, so that what ran before runs again.
        if reason is not None:
            raise UpkeepError(
                f"This PostgreSQL cannot read the backup, so nothing was changed ({reason}). Restore it "
                "where PostgreSQL is as new as where it was made."
            )


def _opened(file: Path, work: Path, passphrase: str | None) -> Path:
    if not file.exists():
        raise UpkeepError(f"There is no file {file}.")
    if not sealing.is_sealed(file):
        return file
    if not passphrase:
        raise UpkeepError(f"{file} is encrypted: set BACKUP_KEY (or BACKUP_KEY_FILE) to its passphrase.")
    clear = work / "backup.tar"
    sealing.open_sealed(file, clear, passphrase)
    return clear


def _why_unreadable(installation: Installation, work: Path) -> str | None:
    """Return why the server's programs cannot read a dump, as with one of a newer PostgreSQL, or None."""
    for database in DATABASES.values():
        try:
            installation.postgres("pg_restore", "--list", database=database).read(work / f"{database}.dump")
        except UpkeepError as error:
            return str(error)
    return None


def _put_back(installation: Installation, work: Path, secrets: Mapping[str, str], *, say: Say) -> None:
    """Fill the databases and the broker's queues from the files in `work`, and store the secrets."""
    try:
        for database in DATABASES.values():
            _restore_beside(installation, database, work / f"{database}.dump")
            say(f"{database}: restored")
    except UpkeepError as error:
        raise UpkeepError(f"The databases are as they were before: {error}") from error
    # Only now, so that a failure or an interruption before leaves the present state as it is.
    for database in DATABASES.values():
        query(
            installation,
            "postgres",
            f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE);\n'
            f'ALTER DATABASE "{database}{_BESIDE}" RENAME TO "{database}";',
        )
    lines = (work / "messages.ndjson").read_text().splitlines()
    _ask_broker(installation, messages=[json.loads(line) for line in lines])
    say(f"messages that waited for a retry: {len(lines)}")
    # Backups of earlier releases have no next pepper, as these did not rotate it in steps.
    installation.put({"next-pepper": "", **secrets})


def _restore_beside(installation: Installation, database: str, dump: Path) -> None:
    """Restore `database` under another name; what an earlier restore has left there is removed."""
    beside = f"{database}{_BESIDE}"
    query(
        installation,
        "postgres",
        f'DROP DATABASE IF EXISTS "{beside}" WITH (FORCE);\n'
        f'CREATE DATABASE "{beside}" OWNER "{database}";\n'
        f'REVOKE ALL ON DATABASE "{beside}" FROM PUBLIC;',
    )
    options = (
        "--no-owner",
        "--no-privileges",
        f"--role={database}",
        "--exit-on-error",
        "--single-transaction",
    )
    installation.postgres("pg_restore", *options, database=beside).read(dump)
    query(installation, beside, "ANALYZE;")


@contextmanager
def _quiet(installation: Installation, sessions: Mapping[str, Session]) -> Iterator[None]:
    """Hold all outboxes until the broker's queues are empty, and for the length of the block.

    After an error, the end of the sessions releases them.
    """
    for one in sessions.values():
        # The lock waits for a relay that is publishing.
        one.ask("SET lock_timeout = '30s'")
        one.ask(f"SELECT pg_advisory_lock({HOLD})")
    held_at = time.monotonic()
    time.sleep(_COUNTED_S)
    while waiting := _waiting(installation):
        if time.monotonic() - held_at > _DRAINED_WITHIN_S:
            raise UpkeepError(
                f"Messages are left after {_DRAINED_WITHIN_S:.0f} s ({waiting}): is every service ready?"
            )
        time.sleep(1)
    yield
    for one in sessions.values():
        one.ask(f"SELECT pg_advisory_unlock({HOLD})")


def _waiting(installation: Installation) -> str:
    """Return the queues that are not empty, with the number of their messages."""
    listed = installation.rabbitmqctl(
        "--quiet", "list_queues", "--vhost", _VHOST, "--no-table-headers", "name", "messages"
    ).run()
    counts = dict(line.split("\t") for line in listed.splitlines() if "\t" in line)
    work = {queue.name for topology in TOPOLOGIES.values() for queue in topology.durable_queues}
    return ", ".join(f"{name}: {count}" for name, count in counts.items() if name in work and count != "0")


def _snapshot(one: Session) -> str:
    one.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return one.ask("SELECT pg_export_snapshot()")


def _ask_broker(installation: Installation, *, messages: list[Any] | None) -> str:
    queues = [rung.queue for topology in TOPOLOGIES.values() for rung in topology.rungs]
    if messages is not None:
        queues += [queue.name for topology in TOPOLOGIES.values() for queue in topology.durable_queues]
    asked = {"url": installation.broker_url, "queues": queues, "messages": messages}
    return installation.python(_MESSAGES.read_text()).run(json.dumps(asked) + "\n", timeout_s=300)
