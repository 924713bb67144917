"""The peer of acceptance: the same gateway, where each accepted request has a commit of its own."""

from __future__ import annotations

from gateway.__main__ import main
from gateway.acceptance import commits

if __name__ == "__main__":
    commits.MOST_TOGETHER = 1
    main()
