"""Writes the dashboards and the metrics reference: `PYTHONPATH=deploy python -m grafana.build`."""

from __future__ import annotations

import json
from pathlib import Path

from grafana import reference, rendering
from grafana.boards import BOARDS

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "grafana" / "dashboards"
REFERENCE = REPOSITORY / "docs" / "metrics.md"


def files() -> dict[Path, str]:
    """Return every generated file and its text."""
    built = {
        FOLDER / f"{board.uid}.json": json.dumps(rendering.dashboard(board, BOARDS), indent=1) + "\n"
        for board in BOARDS
    }
    return {**built, REFERENCE: reference.text()}


def main() -> None:
    """Write the changed dashboards, and remove those that no longer exist."""
    wanted = files()
    for old in set(FOLDER.glob("*.json")) - wanted.keys():
        old.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
