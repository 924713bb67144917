"""Programs that are run for the installation, on this machine or inside one of its containers."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from upkeep.errors import UpkeepError

_SHOWN = 1500
# The installation is local: proxies in the environment are not used.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class CommandLine:
    """A program with its arguments, its complete environment, and its input where none is given."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    typed: str = ""

    def run(self, text: str = "", *, timeout_s: float = 120) -> str:
        """Return the output of the program for the input `text`. Raise `UpkeepError` when it fails."""
        done = self.attempt(text, timeout_s=timeout_s)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-_SHOWN:]
            raise UpkeepError(f"{Path(self.words[0]).name} failed ({done.returncode}): {said}")
        return done.stdout

    def attempt(self, text: str = "", *, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the program to its end, and return the result whatever the exit code."""
        return subprocess.run(
            self.words,
            env=dict(self.environment),
            input=text or self.typed,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def write(self, file: Path) -> None:
        """Write the output of the program to `file`."""
        with file.open("wb") as target:
            done = subprocess.run(
                self.words, env=dict(self.environment), stdout=target, stderr=subprocess.PIPE, check=False
            )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-_SHOWN:]
            raise UpkeepError(f"{self.words[0]} failed ({done.returncode}): {said}")

    def read(self, file: Path) -> None:
        """Run the program with `file` as its input."""
        with file.open("rb") as source:
            done = subprocess.run(
                self.words, env=dict(self.environment), stdin=source, capture_output=True, check=False
            )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-_SHOWN:]
            raise UpkeepError(f"{self.words[0]} failed ({done.returncode}): {said}")


class Session:
    """One connection to PostgreSQL that stays open: a `psql` that is sent one statement after the other."""

    _MARK = "-- end of the answer"

    def __init__(self, command: CommandLine) -> None:
        self._process = subprocess.Popen(
            command.words,
            env=dict(command.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, which ends its transaction and releases its locks.

        After an error, the program is not waited for: its answer may never come.
        """
        if kind is None:
            self._process.communicate()
            return
        with suppress(OSError), self._process:
            self._process.kill()

    def ask(self, statement: str) -> str:
        """Return the rows of a statement, one per line, with columns separated by `|`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statement};\n\\echo '{self._MARK}'\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == self._MARK:
                return "".join(lines).strip()
            lines.append(line)
        said = self._process.stderr.read() if self._process.stderr else ""
        raise UpkeepError(f"PostgreSQL rejected a statement: {said.strip()[-_SHOWN:]}")


def request(url: str, *, key: str | None = None, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """Return status and JSON of a GET, or of a POST with `body`. Raise `UpkeepError` without an answer."""
    headers = {"accept": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers["content-type"] = "application/json"
    asked = urllib.request.Request(url, data, headers)  # noqa: S310  an address of the installation
    try:
        with _OPENER.open(asked, timeout=15) as answer:
            return answer.status, _parsed(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _parsed(error.read())
    except OSError as error:
        raise UpkeepError(f"{url} does not answer: {error}") from error


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"text": text.decode(errors="replace")[:_SHOWN]}
