"""A process that renders templates: `python -m emailer.templates.worker`. Frames of JSON come in and go out.

Its memory and its time are limited, and it keeps nothing: its parent ends it when it hangs.
"""

from __future__ import annotations

import json
import math
import resource
import signal
from typing import Any

from emailer.templates import engine
from emailer.templates.engine import TemplateError
from emailer.workers import frames

MEMORY_BYTES = 256 << 20
# Python hears of the end of the time only between two calls; a call that never returns has so much more.
_IN_ONE_CALL_S = 1.0
# Ends a process whose parent has died while it was at work.
_ALONE_S = 30


class _TooSlowError(BaseException):
    """The time of a template is over. No template can catch it."""


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGPROF, _stop)
    frames.serve(_answer, memory_bytes=MEMORY_BYTES)


def _answer(frame: bytes) -> list[bytes]:
    signal.alarm(_ALONE_S)
    asked = json.loads(frame)
    cpu_s: float = asked["cpu_s"]
    _limit_cpu(cpu_s + _IN_ONE_CALL_S)
    try:
        # What is raised while the timer is stopped ends the template, too, and not the process.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            answer = json.dumps(_rendered(asked))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _TooSlowError:
        answer = json.dumps(_failure("template-too-slow", f"it takes more than {cpu_s:g} s"))
    except MemoryError:
        answer = json.dumps(_failure("template-too-large", "it needs too much memory"))
    _limit_cpu(None)
    signal.alarm(0)
    return [answer.encode()]


def _limit_cpu(seconds: float | None) -> None:
    """Have the kernel end this process by `SIGXCPU` when it uses more CPU time than `seconds` from now on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    end = resource.RLIM_INFINITY
    if seconds is not None:
        end = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))


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
        # A library in Rust that gives up raises what is no `Exception`; it would do so again.
        return _failure("template-failed", f"{type(error).__name__}: {error}"[:500])


def _failure(code: str, detail: str, *, part: str = "", line: int | None = None) -> dict[str, Any]:
    return {"code": code, "detail": detail, "part": part, "line": line}


def _stop(*_: object) -> None:
    raise _TooSlowError


if __name__ == "__main__":
    main()
