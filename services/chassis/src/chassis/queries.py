"""Named SQL: every `.sql` file of a package's `queries` folder holds statements under `-- name:` lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load(package: str) -> Mapping[str, str]:
    """Return the statements of `package` by name. Raise `ValueError` when a name is defined twice."""
    found: dict[str, str] = {}
    for file in sorted(resources.files(package).joinpath("queries").iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".sql"):
            continue
        parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"{package}/queries/{file.name}: {name} is defined twice")
            found[name] = text.strip()
    return found
