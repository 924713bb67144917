"""The secrets of a stack in containers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from containers import make_secrets
from gateway.identity import keys


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    make_secrets.make(tmp_path / "s")
    first = contents(tmp_path / "s")
    make_secrets.make(tmp_path / "s")
    assert contents(tmp_path / "s") == first
    assert {name for name, text in first.items() if not text} == set(make_secrets.OF_OTHERS)


def test_only_the_owner_may_enter_and_nobody_may_write(tmp_path: Path) -> None:
    make_secrets.make(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "s").iterdir()}
    assert {modes.pop(name) for name in make_secrets.OF_OTHERS} == {0o644}
    assert set(modes.values()) == {0o444}


def test_a_removed_password_is_made_anew_and_reaches_the_addresses(tmp_path: Path) -> None:
    make_secrets.make(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "rabbitmq-password-email").unlink()
    make_secrets.make(tmp_path)
    after = contents(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"rabbitmq-password-email", "rabbitmq-url-email", "rabbitmq-definitions.json"}
    assert after["rabbitmq-password-email"] in after["rabbitmq-url-email"]


def test_the_api_key_is_one_that_the_gateway_recognizes() -> None:
    for text in (make_secrets.new_api_key() for _ in range(50)):
        assert str(keys.parse(text)) == text


def test_passwords_need_no_quoting_in_an_address(tmp_path: Path) -> None:
    make_secrets.make(tmp_path)
    for name, value in contents(tmp_path).items():
        if "password" in name and name not in make_secrets.OF_OTHERS:
            assert re.fullmatch(r"[A-Za-z0-9_-]{20,}", value), name


def test_the_definitions_know_each_user_by_the_hash_of_its_password(tmp_path: Path) -> None:
    make_secrets.make(tmp_path)
    definitions = json.loads((tmp_path / "rabbitmq-definitions.json").read_text())
    users = {user["name"]: user for user in definitions["users"]}
    assert users.keys() == {"gateway", "stock-data", "email", "batch-processor", "admin"}
    for name, user in users.items():
        stored = base64.b64decode(user["password_hash"])
        password = (tmp_path / f"rabbitmq-password-{name}").read_text().encode()
        assert stored[4:] == hashlib.sha256(stored[:4] + password).digest()
    assert {entry["user"] for entry in definitions["permissions"]} == users.keys()
    assert users["gateway"]["tags"] == []


def test_the_topology_is_the_repositorys(tmp_path: Path) -> None:
    make_secrets.make(tmp_path)
    made = json.loads((tmp_path / "rabbitmq-definitions.json").read_text())
    ours = json.loads(make_secrets.DEFINITIONS.read_text())
    for part in ("vhosts", "exchanges", "queues", "bindings", "policies"):
        assert made[part] == ours[part]
