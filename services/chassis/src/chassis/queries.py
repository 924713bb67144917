"""Named SQL: every `.sql` file of a package's `queries` folder holds statements under `-- name:` lines.

Modules declare which package's statements they use (`_SQL = queries.of("emailer")`), which opens nothing; the
composition root reads the files (`queries.load("emailer")`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


class Statements(Mapping[str, str]):
    """The statements of one package by name. Raises `RuntimeError` when they are used before `load`."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._texts: Mapping[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def load(self) -> None:
        """Read the files of the package. Raise `ValueError` when a name is defined twice."""
        if self._texts is None:
            self._texts = _read(self._package)

    def _loaded(self) -> Mapping[str, str]:
        if self._texts is None:
            raise RuntimeError(
                f"the SQL of {self._package} is not loaded: "
                f'call queries.load("{self._package}") where the program is put together'
            )
        return self._texts


@cache
def of(package: str) -> Statements:
    """Return the statements of `package`, the same object for every caller; nothing is read yet."""
    return Statements(package)


def load(*packages: str) -> None:
    """Read the statements of these packages. Raise `ValueError` when a name is defined twice in one."""
    for package in packages:
        of(package).load()


def _read(package: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    folder = resources.files(package).joinpath("queries")
    for file in sorted(folder.iterdir(), key=lambda f: f.name) if folder.is_dir() else ():
        if not file.name.endswith(".sql"):
            continue
        parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"{package}/queries/{file.name}: {name} is defined twice")
            found[name] = text.strip()
    return found
