"""Settings of the native run: environment variables, and a `.env` file, over which they take precedence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from native.errors import SettingError
from native.ports import Ports

# The runner starts these servers itself, with a login for each service: one value for all would be wrong.
OWN_VARIABLES = ("RABBITMQ_URL", "POSTGRES_DSN", "MEMCACHED_ADDRESS")
# Only the commands that make backups read it.
_BACKUP_KEY = "BACKUP_KEY"
_RUN_DIRECTORY = "NATIVE_RUN_DIR"
# What commands read besides ports and the variables of backups.
COMMAND_VARIABLES = (_RUN_DIRECTORY, "SUPPORT_FOLDER", "KUBE_CONTEXT", "KUBE_NAMESPACE", "KUBE_OVERLAY")

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


@dataclass(frozen=True, kw_only=True)
class NativeSettings:
    """Ports with all that is wrong with them, and the variables that are passed to the services."""

    ports: Ports = field(default_factory=Ports)
    variables: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @classmethod
    def load(cls, environment: Mapping[str, str], dotenv: Path) -> NativeSettings:
        """Return the settings; an environment variable takes precedence over the same one in the file."""
        variables = given(environment, dotenv)
        others = (*OWN_VARIABLES, _BACKUP_KEY)
        handed_on = {name: value for name, value in variables.items() if name not in others}
        ports, problems = Ports.read(variables)
        return cls(ports=ports, variables=handed_on, problems=tuple(problems))

    def require_ports(self) -> None:
        """Raise `SettingError` with all that is wrong with the ports."""
        if self.problems:
            raise SettingError("\n".join(self.problems))


def given(environment: Mapping[str, str], dotenv: Path) -> dict[str, str]:
    """Return the variables of the environment, and of the file those that the environment does not have."""
    try:
        # Some editors begin the file with a byte order mark.
        text = dotenv.read_text(encoding="utf-8-sig") if dotenv.is_file() else ""
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingError(
            f"{dotenv}, line {line} is not text in UTF-8: save the file in that form"
        ) from error
    except PermissionError as error:
        raise SettingError(
            f"{dotenv} cannot be read by this user: give it the right to, or move it"
        ) from error
    return parse(text, dotenv) | dict(environment)


def run_directory(environment: Mapping[str, str], dotenv: Path) -> Path:
    """Return the folder of the native run's data: `NATIVE_RUN_DIR`, else `.run` beside the file."""
    return Path(given(environment, dotenv).get(_RUN_DIRECTORY) or dotenv.with_name(".run"))


def names(example: str) -> list[str]:
    """Return the variables of the text of `.env.example`, where most are comments."""
    return re.findall(r"^#?([A-Z][A-Z0-9_]*)=", example, re.MULTILINE)


def parse(text: str, source: Path) -> dict[str, str]:
    """Return the variables of a `.env` text: `NAME=value` lines, `#` comments, optional quotes."""
    found: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                name, value = _assignment(line.strip(), f"{source}, line {number}")
            except SettingError as error:
                problems.append(str(error))
            else:
                found[name] = value
    if problems:
        raise SettingError("\n".join(problems))
    return found


def _assignment(line: str, place: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        # The line is not shown: it may contain a secret.
        raise SettingError(f"{place} is not NAME=value, for example GATEWAY_PORT=8080")
    name, value = match.groups()
    quote = value[:1]
    if quote not in ("'", '"'):
        return name, re.split(r"\s+#", value, maxsplit=1)[0].strip()
    end = value.rfind(quote)
    rest = value[end + 1 :].strip()
    if end == 0 or (rest and not rest.startswith("#")):
        raise SettingError(f"{place}: the opening quote {quote} is not closed")
    return name, value[1:end]
