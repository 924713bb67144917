"""The secrets of a stack in containers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

from containers import make_secrets
from gateway.identity import keys

REPOSITORY = Path(__file__).resolve().parents[3]


def make(folder: Path, **variables: str) -> dict[str, str]:
    """Return the content of `folder` after a call, by path."""
    make_secrets.make(folder, folder / "api-key", variables)
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    first = make(tmp_path / "s")
    assert make(tmp_path / "s") == first
    empty = {name for name, text in first.items() if not text and "/" not in name}
    assert empty == {
        *make_secrets.OF_OTHERS,
        "gateway-previous-key-pepper",
        "email-previous-secrets-key",
    }


def test_only_the_owner_may_enter_and_nobody_may_write(tmp_path: Path) -> None:
    make(tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    files = [file for file in (tmp_path / "s").rglob("*") if file.is_file()]
    modes = {str(file.relative_to(tmp_path / "s")): file.stat().st_mode & 0o777 for file in files}
    assert {modes.pop(name) for name in make_secrets.OF_OTHERS} == {0o644}
    assert modes.pop("api-key") == 0o600
    assert set(modes.values()) == {0o444}


def test_a_removed_password_is_made_anew_and_reaches_the_addresses(tmp_path: Path) -> None:
    before = make(tmp_path)
    (tmp_path / "rabbitmq-password-email").unlink()
    after = make(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"rabbitmq-password-email", "email/rabbitmq-url", "rabbitmq/rabbitmq-definitions.json"}
    assert after["rabbitmq-password-email"] in after["email/rabbitmq-url"]


def test_a_container_sees_its_own_secrets_only(tmp_path: Path) -> None:
    made = make(tmp_path)
    seen = {
        service: [made[name] for name in made if name.startswith(f"{service}/")]
        for service in make_secrets.ROLES
    }
    for service, role in make_secrets.ROLES.items():
        for other in seen.keys() - {service}:
            assert not any(made[f"postgres-password-{role}"] in text for text in seen[other])
            assert not any(made[f"rabbitmq-password-{service}"] in text for text in seen[other])
    assert made["gateway/api-key"] == made["api-key"]


def test_the_key_of_the_key_file_is_taken_and_that_of_an_earlier_release(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.write_text("tw_live_of_the_native_run\n")
    make_secrets.make(tmp_path / "s", beside, {})
    assert (tmp_path / "s/gateway/api-key").read_text() == "tw_live_of_the_native_run"
    beside.unlink()
    (tmp_path / "s/api-key").write_text("tw_live_of_an_earlier_release")
    make_secrets.make(tmp_path / "s", beside, {})
    assert beside.read_text() == "tw_live_of_an_earlier_release"
    assert beside.stat().st_mode & 0o777 == 0o600


def test_a_secret_of_a_variable_takes_the_place_of_the_file(tmp_path: Path) -> None:
    make(tmp_path)
    made = make(tmp_path, EMAIL_SMTP_PASSWORD="given", GATEWAY_KEY_PEPPER="a pepper of mine")
    assert (made["smtp-password"], made["email/smtp-password"]) == ("given", "given")
    assert made["gateway/gateway-key-pepper"] == "a pepper of mine"
    assert make(tmp_path)["email/smtp-password"] == "given"


def test_the_api_key_is_one_that_the_gateway_recognizes() -> None:
    for text in (make_secrets.new_api_key() for _ in range(50)):
        assert str(keys.parse(text)) == text


def test_passwords_need_no_quoting_in_an_address(tmp_path: Path) -> None:
    for name, value in make(tmp_path).items():
        if "password" in name and name.rpartition("/")[2] not in make_secrets.OF_OTHERS:
            assert re.fullmatch(r"[A-Za-z0-9_-]{20,}", value), name


def test_the_definitions_know_each_user_by_the_hash_of_its_password(tmp_path: Path) -> None:
    definitions = json.loads(make(tmp_path)["rabbitmq/rabbitmq-definitions.json"])
    users = {user["name"]: user for user in definitions["users"]}
    assert users.keys() == {"gateway", "stock-data", "email", "batch-processor", "admin"}
    for name, user in users.items():
        stored = base64.b64decode(user["password_hash"])
        password = (tmp_path / f"rabbitmq-password-{name}").read_text().encode()
        assert stored[4:] == hashlib.sha256(stored[:4] + password).digest()
    assert {entry["user"] for entry in definitions["permissions"]} == users.keys()
    assert users["gateway"]["tags"] == []


def test_the_topology_is_the_repositorys(tmp_path: Path) -> None:
    made = json.loads(make(tmp_path)["rabbitmq/rabbitmq-definitions.json"])
    ours = json.loads(make_secrets.DEFINITIONS.read_text())
    for part in ("vhosts", "exchanges", "queues", "bindings", "policies"):
        assert made[part] == ours[part]


def test_whoever_starts_compose_without_make_is_told_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, make_secrets.__file__, str(tmp_path / "made/secrets")]
    command += [
        "--key-file",
        str(tmp_path / "made/api-key"),
        "--tell",
        "http://127.0.0.1:8080",
        "./.run/secrets",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "http://127.0.0.1:8080/console/status" in said
    assert "the API key is in .run/api-key." in said
    for program in re.findall("`([^`]+)`", said):
        assert program == "make up" or (REPOSITORY / program).exists()
    assert (tmp_path / "made/api-key").read_text() not in said
