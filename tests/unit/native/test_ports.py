"""The ports of the native run: defaults, variables, offsets and conflicts."""

from __future__ import annotations

import re
import socket

import pytest

from native import ports
from native.errors import PortTakenError, SettingError
from native.ports import HOST, Ports, free_ports


def test_a_port_comes_from_its_variable_and_the_others_keep_their_default() -> None:
    chosen = Ports.from_environment(
        {"GATEWAY_PORT": "9000", "NATIVE_POSTGRES_PORT": " 15433 ", "EMAIL_PORT": ""}
    )
    assert (chosen.gateway, chosen.postgres, chosen.email) == (9000, 15433, 8082)


def test_an_offset_moves_every_port_that_has_no_variable_of_its_own() -> None:
    chosen = Ports.from_environment({"PORT_OFFSET": "10000", "GATEWAY_PORT": "9000"}).numbered()
    moved = {name: number + 10_000 for name, number in Ports().numbered().items()}
    assert chosen == moved | {"gateway": 9000}


@pytest.mark.parametrize("value", ["abc", "-1", "60000"])
def test_an_unusable_offset_is_refused_with_an_example(value: str) -> None:
    with pytest.raises(SettingError, match=re.escape(f"PORT_OFFSET is '{value}'")) as error:
        Ports.from_environment({"PORT_OFFSET": value})
    assert "PORT_OFFSET=10000" in str(error.value)


def test_several_taken_ports_can_be_moved_at_once() -> None:
    with socket.create_server((HOST, 0)) as one, socket.create_server((HOST, 0)) as two:
        numbers = {"email": one.getsockname()[1], "stock_data": two.getsockname()[1]}
        with pytest.raises(PortTakenError, match="make run PORT_OFFSET=10000"):
            ports.check_free(Ports(**Ports.free().numbered() | numbers))


def test_every_port_has_a_variable() -> None:
    assert set(ports.VARIABLES) == set(ports.names())


@pytest.mark.parametrize("value", ["abc", "0", "65536", "-1", "80.5"])
def test_an_unusable_port_is_refused_with_the_variable_and_an_example(value: str) -> None:
    with pytest.raises(SettingError, match=re.escape(f"GATEWAY_PORT is '{value}'")) as error:
        Ports.from_environment({"GATEWAY_PORT": value})
    assert "GATEWAY_PORT=8080" in str(error.value)


def test_one_port_for_two_processes_is_refused_with_both_variables() -> None:
    with pytest.raises(SettingError, match="GATEWAY_PORT, EMAIL_PORT"):
        Ports.from_environment({"GATEWAY_PORT": "8082"})


def test_all_that_is_wrong_with_the_ports_is_named_at_once() -> None:
    wrong = {"GATEWAY_PORT": "eighty", "EMAIL_PORT": "0", "PORT_OFFSET": "far", "STOCK_DATA_PORT": "8090"}
    with pytest.raises(SettingError) as error:
        Ports.from_environment(wrong)
    lines = str(error.value).splitlines()
    found = [line.split(" is ")[0] for line in lines]
    assert found == ["PORT_OFFSET", "GATEWAY_PORT", "EMAIL_PORT", "Port 8090"]
    assert "GATEWAY_OPS_PORT, STOCK_DATA_PORT" in lines[-1]


def test_free_ports_are_all_different() -> None:
    numbers = Ports.free().numbered().values()
    assert len(set(numbers)) == len(ports.names())


def test_a_taken_port_is_named_with_its_holder_and_the_way_out() -> None:
    with socket.create_server((HOST, 0)) as holder:
        number = holder.getsockname()[1]
        with pytest.raises(PortTakenError) as error:
            ports.check_free(Ports(**Ports.free().numbered() | {"stock_data": number}))
    message = str(error.value)
    assert f"Port {number} for stock-data is taken" in message
    assert "make run STOCK_DATA_PORT=" in message
    assert len(message.splitlines()) == 1


def test_free_ports_pass_the_check() -> None:
    ports.check_free(Ports.free())


def test_a_free_port_is_given_out_once_before_anything_listens_on_it() -> None:
    (port,) = free_ports(1)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, port))


def test_a_server_can_listen_on_a_free_port() -> None:
    (port,) = free_ports(1)
    with socket.create_server((HOST, port)), pytest.raises(OSError, match="in use"):
        socket.create_server((HOST, port))
