"""The lines that are shown while the stack starts, runs and stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from native.supervisor import ProgramEvent


class Progress:
    """Turns events into lines; on a terminal, a status line names what has not started yet."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waiting: dict[str, str] = {}
        self._status: Status | None = None

    def __call__(self, event: ProgramEvent) -> None:
        """Print the line of an event, if it has one, and name the programs that have not started yet."""
        if event.state == "starting":
            self._waiting[event.name] = event.detail
        else:
            self._waiting.pop(event.name, None)
        line = _line(event)
        if line:
            self.say(line)
        if self._status and self._waiting:
            names = ", ".join(sorted(self._waiting))
            first = next(iter(self._waiting.values()))
            self._status.update(f"waiting for {names}" + (f" ({first})" if len(self._waiting) == 1 else ""))

    def say(self, line: str) -> None:
        """Print one line as it is."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Show on a terminal, during the block, what has not started yet."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status("starting …") as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None


def _line(event: ProgramEvent) -> str:
    match event.state:
        case "ready":
            return f"  ready    {event.name:<16} {event.detail}"
        case "exited":
            return f"  ended    {event.name:<16} {event.detail}"
        case "stopped":
            return f"  stopped  {event.name}"
    return ""
