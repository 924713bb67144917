"""The exit codes of containers, as the engine reports them."""

from __future__ import annotations

import subprocess
import threading
import time

from support.deployment.engine import Engine

_SHOWN = '{{.Actor.ID}} {{index .Actor.Attributes "exitCode"}}'


class Exits:
    """One call of `docker events` that stays open: asking for each container again and again costs a core."""

    def __init__(self, engine: Engine) -> None:
        words = ["docker", "events", "--since", str(int(time.time())), "--filter", "event=die"]
        self._process = subprocess.Popen(
            [*words, "--format", _SHOWN], env=engine.environment, stdout=subprocess.PIPE, text=True
        )
        self._codes: dict[str, int] = {}
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def code(self, container: str) -> int | None:
        """Return the exit code of a container; None while it runs."""
        return self._codes.get(container)

    def close(self) -> None:
        """End the call."""
        self._process.terminate()
        self._process.wait(timeout=10)
        self._reading.join(timeout=10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                container, code = line.split()
                self._codes[container] = int(code)
