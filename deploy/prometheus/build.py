"""Writes the rules of the objectives: `PYTHONPATH=deploy python -m prometheus.build`."""

from __future__ import annotations

from pathlib import Path

from prometheus import objectives

FOLDER = Path(__file__).resolve().parent / "rules"


def files() -> dict[Path, str]:
    """Return every generated file and its text."""
    return {FOLDER / "objectives.yml": objectives.rules()}


def main() -> None:
    """Write every generated file of this folder."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
