"""A process that renders templates: `python -m emailer.templates.worker`. It reads and writes JSON frames.

Its memory and its time are limited, and it is stateless: its parent ends it when it hangs.
"""

from __future__ import annotations

import json
import signal
from typing import Any

from emailer.templates import engine
from emailer.templates.engine import TemplateError
from emailer.workers import frames

MEMORY_BYTES = 256 << 20
# Python handles the timer's signal only between bytecodes; a C call that does not return gets this much more.
_IN_ONE_CALL_S = 1.0
# Ends a process whose parent died while it was working.
_ALONE_S = 30


class _TooSlowError(BaseException):
    """The CPU time of a template is used up. Templates cannot catch this."""


def main() -> None:
    """Answer frames until the input ends."""

    def stop(*_: object) -> None:
        raise _TooSlowError

    signal.signal(signal.SIGPROF, stop)
    frames.serve(_answer, memory_bytes=MEMORY_BYTES)


def _answer(frame: bytes) -> list[bytes]:
    signal.alarm(_ALONE_S)
    asked = json.loads(frame)
    cpu_s: float = asked["cpu_s"]
    frames.limit_cpu(cpu_s + _IN_ONE_CALL_S)
    try:
        # A signal that arrives while the timer is being stopped must end the template, too, not the process.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            answer = json.dumps(_rendered(asked))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _TooSlowError:
        answer = json.dumps(_failure("template-too-slow", f"it takes more than {cpu_s:g} s"))
    except MemoryError:
        answer = json.dumps(_failure("template-too-large", "it needs too much memory"))
    frames.limit_cpu(None)
    signal.alarm(0)
    return [answer.encode()]


def _rendered(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        if asked["data"] is None:
            engine.check(asked["source"])
            return {"rendered": None}
        return {"rendered": engine.render(asked["source"], asked["data"])}
    except TemplateError as error:
        return _failure(error.code, error.detail, part=error.part, line=error.line)
    except RecursionError:
        return _failure("template-failed", "it is nested too deeply")
    except (MemoryError, _TooSlowError):
        raise
    except BaseException as error:
        # A Rust library that panics raises what is not an `Exception`; it would panic again.
        return _failure("template-failed", f"{type(error).__name__}: {error}"[:500])


def _failure(code: str, detail: str, *, part: str = "", line: int | None = None) -> dict[str, Any]:
    return {"code": code, "detail": detail, "part": part, "line": line}


if __name__ == "__main__":
    main()
