"""The definitions and the node of RabbitMQ in the native run."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from native import rabbitmq
from native.directories import RunDirectory
from native.ports import Ports
from native.rabbitmq import RabbitMQ

PASSWORDS = {"gateway": "one", "admin": "two"}


def test_each_user_gets_a_salted_hash_and_no_password() -> None:
    merged = rabbitmq.with_users({}, PASSWORDS)
    user = next(user for user in merged["users"] if user["name"] == "gateway")
    raw = base64.b64decode(user["password_hash"])
    assert raw[4:] == hashlib.sha256(raw[:4] + b"one").digest()
    assert "one" not in json.dumps(merged)


def test_only_the_administrator_has_the_administrator_tag() -> None:
    tags = {user["name"]: user["tags"] for user in rabbitmq.with_users({}, PASSWORDS)["users"]}
    assert tags == {"gateway": "", "admin": "administrator"}


def test_the_permissions_of_the_definitions_stay_and_the_missing_ones_are_added() -> None:
    narrow = {"user": "gateway", "vhost": "tickwire", "configure": "^x$", "write": "^x$", "read": "^x$"}
    stranger = narrow | {"user": "guest"}
    merged = rabbitmq.with_users({"permissions": [narrow, stranger]}, PASSWORDS)
    assert merged["permissions"][0] == narrow
    assert [entry["user"] for entry in merged["permissions"]] == ["gateway", "admin"]


def test_the_rest_of_the_definitions_is_kept() -> None:
    merged = rabbitmq.with_users({"policies": [{"name": "p"}], "vhosts": [{"name": "tickwire"}]}, PASSWORDS)
    assert merged["policies"] == [{"name": "p"}]
    assert merged["vhosts"] == [{"name": "tickwire"}]


def test_the_node_is_private_in_ports_and_files(tmp_path: Path) -> None:
    ports = Ports(rabbitmq=20001, epmd=20002, rabbitmq_distribution=20003)
    environment = RabbitMQ(RunDirectory.at(tmp_path), ports).stages[1][0].environment
    assert environment["ERL_EPMD_PORT"] == "20002"
    assert environment["RABBITMQ_DIST_PORT"] == "20003"
    for name in ("HOME", "RABBITMQ_MNESIA_DIR", "RABBITMQ_CONFIG_FILE", "RABBITMQ_ENABLED_PLUGINS_FILE"):
        assert environment[name].startswith(str(tmp_path))


def test_the_node_keeps_its_name_when_its_port_changes(tmp_path: Path) -> None:
    run = RunDirectory.at(tmp_path)
    names = {RabbitMQ(run, Ports.free()).stages[1][0].environment["RABBITMQ_NODENAME"] for _ in range(2)}
    assert names == {"tickwire@localhost"}
