"""The program that is called `kubectl` on the path: it passes its arguments to the test (`kubectl.py`)."""

from __future__ import annotations

import json
import os
import socket
import sys


def main(place: str, words: list[str]) -> int:
    """Run the command; return its exit code."""
    typed = sys.stdin.read() if words[-2:] == ["-f", "-"] else ""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        connection.sendall(json.dumps({"words": words, "typed": typed}).encode() + b"\n")
        with connection.makefile() as answers:
            found = json.loads(answers.readline())
    if "run" in found:
        os.execvp(found["run"][0], found["run"])
    sys.stdout.write(found["out"])
    sys.stderr.write(found["err"])
    return int(found["code"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
