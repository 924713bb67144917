"""`python -m upkeep`: operations on a running or stopped installation."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from card import asking
from native.directories import RunDirectory
from native.errors import NativeError
from native.settings import NativeSettings, given, run_directory
from upkeep import agent, backups, bundles, compose_stack, kubernetes_stack, rotation, turns, upgrades
from upkeep.backups import BackupOptions
from upkeep.errors import NOTHING_RUNS, UpkeepError, variable_wins
from upkeep.installation import Installation
from upkeep.native_stack import NativeStack

_WAYS = ("native", "compose", "kubernetes")
_REPOSITORY = Path(__file__).resolve().parents[2]
_DOTENV = _REPOSITORY / ".env"


def main(arguments: list[str] | None = None) -> int:
    """Run the command given on the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run_dir = options.run_dir or run_directory(os.environ, _DOTENV)
        if options.way == "kubernetes" and options.command in (support_bundle, upgrade_check):
            # They ask any cluster, also one whose servers cannot be changed from here.
            return _inside_containers(options)
        return int(options.command(_installation(options), options))
    except (UpkeepError, NativeError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"{error.strerror or error}{place}", file=sys.stderr)
    return 1


def rotate(installation: Installation, options: argparse.Namespace) -> int:
    """Change a secret in the server, its file and the processes together; the old one stops working."""
    if options.secret is None:
        print("make rotate SECRET=…, one of:", *rotation.names(installation), sep="\n  ")
        return 0
    with turns.changing(installation):
        rotation.rotate(
            installation,
            options.secret,
            new=os.environ.get("NEW_SECRET"),
            finish=options.finish,
            now=options.now,
            say=print,
        )
    return 0


def backup(installation: Installation, options: argparse.Namespace) -> int:
    """Write a consistent state of the four databases, and what belongs to it, into one file."""
    chosen = _backup_options(installation, options)
    file = backups.back_up(installation, chosen, say=print)
    print(
        f"{file}: {file.stat().st_size:,} bytes{'' if chosen.passphrase else ', not encrypted (BACKUP_KEY)'}"
    )
    return 0


def backup_agent(installation: Installation, options: argparse.Namespace) -> int:
    """Make the backups that tasks of `database.backup` ask for, until Ctrl-C; `make run` has an agent."""
    # So that an interrupted backup is undone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    chosen = _backup_options(installation, options)
    if options.once:
        agent.serve_waiting(installation, chosen, say=_say_when)
        return 0
    try:
        agent.serve(installation, chosen, say=_say_when)
    except KeyboardInterrupt:
        return 0


def restore(installation: Installation, options: argparse.Namespace) -> int:
    """Restore the state of a backup; the current data of the installation is lost."""
    if options.file is None:
        print("FILE is missing: make restore FILE=backups/tickwire-….tar", file=sys.stderr)
        return 2
    with turns.changing(installation):
        backups.restore(installation, options.file, passphrase=_passphrase(_variables()), say=print)
    if installation.kind == "native run":
        print("Restored. Start it: make run")
    return 0


def support_bundle(installation: Installation, options: argparse.Namespace) -> int:
    """Collect versions, settings, readiness, queues and the last errors in one file without secrets."""
    if not isinstance(installation, NativeStack):
        return _inside_containers(options)
    # The stack need not run: a bundle may show why it has stopped.
    if not installation.run.secrets.exists():
        raise UpkeepError("Nothing has run here: start the stack first (`make run` or `make up`).")
    folder = options.folder or Path(_variables().get("SUPPORT_FOLDER") or installation.run.root / "support")
    print(bundles.bundle(installation, folder, dotenv=given({}, _DOTENV), repository=_REPOSITORY))
    return 0


def login(installation: Installation, options: argparse.Namespace) -> int:
    """Print an address that logs a browser into the console, once."""
    url = options.url.rstrip("/") if options.url else installation.gateway_url
    if not options.url and not installation.is_running:
        raise UpkeepError("No stack runs here: start it (`make run` or `make up`), or name one with --url.")
    key = options.key_file.read_text(encoding="utf-8").strip() if options.key_file else ""
    try:
        print(asking.login_address(url, key or installation.secret("api-key")))
    except asking.NoAnswer as error:
        raise UpkeepError(f"The gateway at {url} made no login address: {error}") from error
    print(f"It opens the console once, within {asking.LOGIN_MINUTES} minutes.", file=sys.stderr)
    return 0


def demo(installation: Installation, options: argparse.Namespace) -> int:
    """Walk through everything against a running stack."""
    if not (options.url and options.mailbox) and not installation.is_running:
        raise UpkeepError(
            "No stack runs here: start it (`make run` or `make up`) in another terminal, or name another "
            "one: make demo ARGS='--url <address> --mailbox <address> --key-file <file>'."
        )
    key_file = options.key_file or installation.key_file
    if not options.key and not key_file.is_file():
        raise UpkeepError(f"There is no API key in {key_file}: name the file that contains it.")
    receiver_port = None
    # The gateway of another stack is elsewhere, or sees another loopback.
    if isinstance(installation, NativeStack) and not options.url:
        receiver_port = installation.blueprint.ports.webhook_receiver
    # Imported here, because its HTTP clients are large, and the other verbs do not need them.
    from rich.console import Console

    from native import demo as tour

    failed = asyncio.run(
        tour.walk(
            url=options.url or installation.gateway_url,
            mailbox_url=options.mailbox or installation.mailbox_url,
            key=options.key or key_file.read_text(encoding="utf-8").strip(),
            console=Console(),
            receiver_port=receiver_port,
        )
    )
    return 1 if failed else 0


def upgrade_check(installation: Installation, options: argparse.Namespace) -> int:
    """Print what an upgrade to this release would do, and the problems that prevent it now."""
    if not isinstance(installation, NativeStack):
        return _inside_containers(options)
    notes, problems = upgrades.check(installation, _REPOSITORY)
    print("\n".join(notes))
    for problem in problems:
        print(f"first: {problem}", file=sys.stderr)
    print("Go ahead: docs/guides/upgrade.md" if not problems else "Not yet.")
    return 1 if problems else 0


def keys_reset(installation: Installation, options: argparse.Namespace) -> int:
    """Make a new administrator's key for the running stack, and put it into the key file."""
    if not installation.is_running:
        raise UpkeepError(NOTHING_RUNS)
    if variable := installation.set_by_hand("api-key"):
        raise variable_wins(variable)
    others = ("--revoke-others",) if options.revoke_others else ()
    with turns.changing(installation):
        made = installation.gateway_program("-m", "gateway.identity.reset", *others).attempt()
        print(made.stderr, end="", file=sys.stderr)
        if made.returncode:
            raise UpkeepError("No key was made; see the reason above.")
        key = made.stdout.split()[-1]
        installation.put({"api-key": key})
    print(f"{key}\nIt is also in {installation.key_file}.")
    return 0


def _inside_containers(options: argparse.Namespace) -> int:
    """Run the verb by the shell script for containers, as on a host without Python."""
    script = _REPOSITORY / "deploy/containers/upkeep"
    way = ("kubernetes",) if options.way == "kubernetes" else ()
    verb = options.command.__name__.replace("_", "-")
    # Without the option, the script chooses.
    folder = {"SUPPORT_FOLDER": str(options.folder)} if getattr(options, "folder", None) else {}
    return subprocess.call((script, verb, *way), env={**os.environ, **folder})


def _installation(options: argparse.Namespace) -> Installation:
    """Return the named installation, else the one that runs on this machine, else the native one."""
    if options.way == "kubernetes":
        return kubernetes_stack.at(_REPOSITORY, os.environ)
    settings = NativeSettings.load(os.environ, _DOTENV)
    settings.require_ports()
    native = NativeStack(RunDirectory(options.run_dir.resolve()), settings)
    if options.way == "native" or (options.way is None and native.is_running):
        return native
    if options.way == "compose" or compose_stack.has_containers(_REPOSITORY):
        return compose_stack.at(_REPOSITORY, os.environ)
    return native


def _variables() -> dict[str, str]:
    return {name: value for name, value in given(os.environ, _DOTENV).items() if value}


def _backup_options(installation: Installation, options: argparse.Namespace) -> BackupOptions:
    """Return the options of a backup: of the command line, else of the environment, else of `.env`."""
    variables = _variables()
    folder = options.folder or (
        Path(named) if (named := variables.get("BACKUP_FOLDER")) else installation.backups
    )
    keep = options.keep or variables.get("BACKUP_KEEP", "7")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", keep):
        raise UpkeepError(f"BACKUP_KEEP is {keep!r}: it must be a number of backups to keep, 1 or more.")
    return BackupOptions(folder, _passphrase(variables), int(keep))


def _passphrase(variables: Mapping[str, str]) -> str | None:
    file = variables.get("BACKUP_KEY_FILE")
    return Path(file).read_text(encoding="utf-8").strip() if file else variables.get("BACKUP_KEY") or None


def _say_when(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m upkeep", description=__doc__)
    of_native = "of the native run (default: NATIVE_RUN_DIR, or .run)"
    parser.add_argument("--run-dir", type=Path, help=of_native)
    parser.add_argument("--way", choices=_WAYS, help="default: native or compose, what runs here")
    commands = parser.add_subparsers(required=True, metavar="verb")
    made = {}
    verbs = (rotate, backup, backup_agent, restore, support_bundle, login, demo, keys_reset, upgrade_check)
    for command in verbs:
        name = command.__name__.replace("_", "-")
        made[name] = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        made[name].set_defaults(command=command)
    made["rotate"].add_argument("secret", nargs="?", help="its name; without it, all names are listed")
    finish = "end the overlap in which the old pepper, or the old e-mail secrets key, is valid, too"
    made["rotate"].add_argument("--finish", action="store_true", help=finish)
    made["rotate"].add_argument("--now", action="store_true", help="with --finish: before its time")
    where = "folder to write to (default: BACKUP_FOLDER, or backups, beside the run directory)"
    for name in ("backup", "backup-agent"):
        made[name].add_argument("--folder", type=Path, help=where)
        made[name].add_argument(
            "--keep", help="number of newest backups to keep (default: BACKUP_KEEP, or 7)"
        )
    once = "make the backup that is asked for now, if there is one, and end"
    made["backup-agent"].add_argument("--once", action="store_true", help=once)
    made["restore"].add_argument(
        "file", nargs="?", type=lambda text: Path(text).expanduser(), help="the backup"
    )
    made["login"].add_argument("--url", help="the gateway's address (default: that of the running stack)")
    made["login"].add_argument("--key-file", type=Path, help="file of an administrator's key (.run/api-key)")
    made["demo"].add_argument("--url", help="the gateway's address (default: that of the running stack)")
    made["demo"].add_argument("--mailbox", help="the mailbox's address (default: that of the running stack)")
    keys = made["demo"].add_mutually_exclusive_group()
    keys.add_argument("--key-file", type=Path, help="file of an API key (default: that of the running stack)")
    keys.add_argument("--key", help="the API key itself, which others on this machine can then read")
    others = "revoke the administrator's other keys and the keys made with them"
    made["keys-reset"].add_argument("--revoke-others", action="store_true", help=others)
    made["support-bundle"].add_argument(
        "--folder",
        type=Path,
        help="folder to write to (default: SUPPORT_FOLDER, or support in the run directory)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
