"""A process that renders templates: `python -m emailer.templates.worker`. Frames of JSON come in and go out.

Its memory and its time are limited, and it keeps nothing: its parent ends it when it hangs.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

from emailer.templates import engine
from emailer.templates.engine import TemplateError

LENGTH = struct.Struct(">I")
MOST_FRAME = 8 << 20
CPU_S = 2.0
MEMORY_BYTES = 256 << 20
# Ends a process whose parent has died while it was at work.
_ALONE_S = 30


class _TooSlowError(BaseException):
    """The time of a template is over. No template can catch it."""


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGPROF, _stop)
    # Ctrl-C in a terminal is meant for the service, whose end ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    while (asked := _read(incoming)) is not None:
        answer = json.dumps(_answer(asked)).encode()
        outgoing.write(LENGTH.pack(len(answer)) + answer)
        outgoing.flush()


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    signal.alarm(_ALONE_S)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    try:
        if asked["data"] is None:
            engine.check(asked["source"])
            return {"rendered": None}
        return {"rendered": engine.render(asked["source"], asked["data"])}
    except TemplateError as error:
        return _failure(error.code, error.detail, part=error.part, line=error.line)
    except MemoryError:
        return _failure("template-too-large", "it needs too much memory")
    except RecursionError:
        return _failure("template-failed", "it is nested too deeply")
    except _TooSlowError:
        return _failure("template-too-slow", f"it takes more than {CPU_S:g} s")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def _failure(code: str, detail: str, *, part: str = "", line: int | None = None) -> dict[str, Any]:
    return {"code": code, "detail": detail, "part": part, "line": line}


def _stop(*_: object) -> None:
    raise _TooSlowError


def _read(incoming: BinaryIO) -> dict[str, Any] | None:
    head = incoming.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    found: dict[str, Any] = json.loads(incoming.read(LENGTH.unpack(head)[0]))
    return found


if __name__ == "__main__":
    main()
