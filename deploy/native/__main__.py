"""`python -m native`: the stack on this machine, without containers."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from chassis import allocator
from native import footprint, leftovers, runner
from native.cluster import Cluster
from native.directories import RunDirectory
from native.errors import NativeError, SettingError
from native.progress import Progress
from native.settings import NativeSettings, run_directory

_DOTENV = Path(__file__).resolve().parents[2] / ".env"
_STOP_PATIENCE_S = 90.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command given on the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run_dir = options.run_dir or run_directory(os.environ, _DOTENV)
        return int(options.command(options))
    except SettingError as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except NativeError as error:
        print(f"\n{error}", file=sys.stderr)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        # Without a folder, the file that may name it could not be read.
        advice = options.run_dir and (
            f" This user must be able to write to {options.run_dir}; "
            "choose another folder: make run NATIVE_RUN_DIR=<folder>"
        )
        print(f"\n{error.strerror or error}{place}.{advice or ''}", file=sys.stderr)
    return 1


def run(options: argparse.Namespace) -> int:
    """Start everything, print the card, and run until a signal."""
    settings = NativeSettings.load(os.environ, _DOTENV)
    progress = Progress(Console())
    allocator.limit_arenas()
    asyncio.run(runner.run(options.run_dir, settings, progress))
    return 0


def status(options: argparse.Namespace) -> int:
    """Print the state of every process; return 0 when everything is ready."""
    directory = RunDirectory(options.run_dir.resolve())
    pid = runner.owner(directory)
    if pid is None:
        print(f"Nothing runs from {directory.root}.")
        return 1
    print(f"The runner is process {pid}; the run directory is {directory.root}.")
    for name, entry in runner.state(directory).items():
        words = {"ready": "ready after ", "starting": "waits for: "}.get(entry["state"], "")
        print(f"  {name:<16} {entry['state']:<9} process {entry['pid'] or '-':<8} {words}{entry['detail']}")
    return 0 if directory.ready.exists() else 1


def stop(options: argparse.Namespace) -> int:
    """Ask the runner to stop everything, and wait until it has ended."""
    directory = RunDirectory(options.run_dir.resolve())
    pid = runner.owner(directory)
    if pid is None:
        ended = asyncio.run(leftovers.stop(directory.root, patience_s=leftovers.PATIENCE_S))
        left = f"; ended what a runner that was killed had left: {', '.join(ended)}" if ended else ""
        print(f"Nothing runs from {directory.root}{left}.")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_PATIENCE_S
    while runner.owner(directory) == pid:
        if time.monotonic() > deadline:
            raise NativeError(f"Process {pid} has not stopped after {_STOP_PATIENCE_S:.0f} s.")
        time.sleep(0.1)
    print("Stopped.")
    return 0


def costs(options: argparse.Namespace) -> int:
    """Measure memory and CPU time of every process of the running stack."""
    directory = RunDirectory(options.run_dir.resolve())
    pid = runner.owner(directory)
    if pid is None:
        raise NativeError(f"Nothing runs from {directory.root}: start the stack with `make run` first.")
    print(footprint.table(footprint.measure(directory.root, pid, seconds=options.seconds)))
    return 0


def reset(options: argparse.Namespace) -> int:
    """Remove the data, the logs and the secrets of the stopped stack."""
    directory = RunDirectory.at(options.run_dir)
    with runner.ownership(directory):
        asyncio.run(leftovers.stop(directory.root, patience_s=leftovers.PATIENCE_S))
        Cluster(directory).remove()
        shutil.rmtree(directory.root)
    print(f"Removed {directory.root}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m native", description=__doc__)
    where = "data, logs, secrets (default: NATIVE_RUN_DIR, or .run)"
    parser.add_argument("--run-dir", type=Path, help=where)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (run, status, stop, reset):
        text = command.__doc__
        commands.add_parser(command.__name__, help=text, description=text).set_defaults(command=command)
    text = costs.__doc__
    measured = commands.add_parser("footprint", help=text, description=text)
    measured.add_argument("--seconds", type=float, default=30.0, help="how long to measure (30)")
    measured.set_defaults(command=costs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
