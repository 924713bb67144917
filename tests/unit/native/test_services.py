"""The environment and the order of the services in the native run."""

from __future__ import annotations

import re
from pathlib import Path

from native.directories import RunDirectory
from native.ports import Ports
from native.services import GATEWAY, NAMES, SERVICES
from native.stack import Blueprint

PORTS = Ports()


def environment(directory: Path, name: str, **more: object) -> dict[str, str]:
    backing = Blueprint(RunDirectory.at(directory), PORTS, **more).backing  # type: ignore[arg-type]
    return backing.environment(next(service for service in SERVICES if service.name == name), PORTS)


def test_each_service_logs_in_as_itself(tmp_path: Path) -> None:
    for name in NAMES:
        address = Path(environment(tmp_path, name)["RABBITMQ_URL_FILE"])
        assert address.read_text().startswith(f"amqp://{name}:")
        assert address.stat().st_mode & 0o777 == 0o600
    address = Path(environment(tmp_path, "email")["POSTGRES_DSN_FILE"])
    assert address.read_text().startswith("postgresql://emailer:")


def test_the_gateway_gets_its_secrets_as_files(tmp_path: Path) -> None:
    found = environment(tmp_path, "gateway")
    key = Path(found["GATEWAY_BOOTSTRAP_KEY_FILE"])
    pepper = Path(found["GATEWAY_KEY_PEPPER_FILE"])
    assert (key.stat().st_mode & 0o777, pepper.stat().st_mode & 0o777) == (0o600, 0o600)
    assert re.fullmatch(r"tw_live_[0-9a-f]{16}_[0-9A-Za-z]{49}", key.read_text())
    assert "GATEWAY_BOOTSTRAP_KEY_FILE" not in environment(tmp_path, "email")


def test_the_key_and_the_passwords_stay_the_same(tmp_path: Path) -> None:
    first, second = (environment(tmp_path, "gateway") for _ in range(2))
    assert first == second


def test_a_setting_wins_over_a_default(tmp_path: Path) -> None:
    variables = {"EMAIL_SMTP_HOST": "relay.example.org", "LOG_FORMAT": "pretty"}
    found = environment(tmp_path, "email", variables=variables)
    assert (found["EMAIL_SMTP_HOST"], found["LOG_FORMAT"]) == ("relay.example.org", "pretty")


def test_webhooks_may_reach_the_demo_unless_their_targets_are_set(tmp_path: Path) -> None:
    ports, name = Ports.from_environment({"PORT_OFFSET": "10000"}), "GATEWAY_WEBHOOK_INTERNAL_TARGETS"
    moved = Blueprint(RunDirectory.at(tmp_path), ports).backing.environment(GATEWAY, ports)
    assert moved[name] == f"127.0.0.1:{ports.webhook_receiver}" == "127.0.0.1:18084"
    assert environment(tmp_path, "gateway", variables={name: ""})[name] == ""
    assert name not in environment(tmp_path, "email")


def test_a_secret_that_is_set_takes_the_place_of_its_file(tmp_path: Path) -> None:
    found = environment(tmp_path, "email", variables={"EMAIL_SMTP_PASSWORD": "mine"})
    assert found["EMAIL_SMTP_PASSWORD"] == "mine"
    assert "EMAIL_SMTP_PASSWORD_FILE" not in found


def test_the_secret_of_the_data_provider_is_in_a_file_until_it_is_set(tmp_path: Path) -> None:
    kept = Path(environment(tmp_path, "stock-data")["STOCK_DATA_ALPACA_SECRET_KEY_FILE"])
    assert (kept.name, kept.read_text()) == ("alpaca-secret-key", "")
    kept.write_text("of Alpaca")
    environment(tmp_path, "stock-data")
    assert kept.read_text() == "of Alpaca"
    found = environment(tmp_path, "stock-data", variables={"STOCK_DATA_ALPACA_SECRET_KEY": "mine"})
    assert "STOCK_DATA_ALPACA_SECRET_KEY_FILE" not in found


def test_services_connect_to_a_proxy_that_is_put_in_between(tmp_path: Path) -> None:
    found = environment(tmp_path, "email", via={"postgres": 20001, "mailbox_smtp": 20002})
    assert ":20001/emailer" in Path(found["POSTGRES_DSN_FILE"]).read_text()
    assert found["EMAIL_SMTP_PORT"] == "20002"


def test_services_stop_before_servers_and_the_port_mapper_last(tmp_path: Path) -> None:
    stages = Blueprint(RunDirectory.at(tmp_path), PORTS).stages()
    names = [{program.name for program in stage} for stage in stages]
    assert names[0] == {"epmd"}
    assert names[-1] == set(NAMES)
    assert names[1] == {"rabbitmq", "postgres", "memcached"}


def test_a_server_can_be_left_out(tmp_path: Path) -> None:
    stages = Blueprint(RunDirectory.at(tmp_path), PORTS, services=["email"], without=["prometheus"]).stages()
    assert {program.name for stage in stages[2:] for program in stage} == {"mailbox", "email"}
