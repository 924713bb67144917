"""The broker's definitions, the topology and the messages agree."""

from __future__ import annotations

import json
import re

import pytest

from contracts import emails, message
from contracts.topology import (
    BATCH_PROCESSOR,
    COMMANDS,
    EVENTS,
    GATEWAY,
    LIVE,
    REPLIES,
    RPC,
    SERVICES,
    SHARED_EXCHANGES,
    TOPOLOGIES,
    ladder,
)
from gateway import consumers
from gateway.reference import broker
from rabbitmq import definitions


def test_the_definitions_file_is_the_one_made_from_the_topology() -> None:
    assert definitions.FILE.read_text() == definitions.render(), "run: python -m rabbitmq.definitions"


def test_every_message_type_is_unique_and_versioned() -> None:
    types = [m.message_type for m in broker.messages()]
    assert len(types) == len(set(types))
    assert all(name.rsplit(".v", 1)[1].isdigit() for name in types)


def test_every_command_goes_to_a_queue_that_exists() -> None:
    queues = {queue.name for topology in TOPOLOGIES.values() for queue in topology.queues}
    commands = [m for m in broker.messages() if issubclass(m, message.Command)]
    assert commands
    for command in commands:
        assert command.queue in queues


def test_batch_processor_may_send_no_command_to_others_that_its_operations_do_not_send() -> None:
    """A direct exchange has no rights by key: a command that it must not send needs another exchange."""
    foreign = {
        route.key
        for topology in TOPOLOGIES.values()
        for route in topology.routes
        if route.source == COMMANDS and topology.service != BATCH_PROCESSOR
    }
    assert foreign == {emails.SendEmail.queue, emails.SendEmail.bulk_queue}


def test_every_request_goes_to_a_service_that_answers() -> None:
    requests = [m for m in broker.messages() if issubclass(m, message.Request)]
    assert requests
    # Requests about parked messages name no service: every service answers them.
    for request in (r for r in requests if not r.message_type.startswith("parked.")):
        assert f"{request.service}.rpc" in {queue.name for queue in TOPOLOGIES[request.service].queues}


def test_every_event_has_a_queue_that_takes_it() -> None:
    keys = [key for t in TOPOLOGIES.values() for q in t.queues if q.exchange == "events" for key in q.keys]
    for event in (m for m in broker.messages() if issubclass(m, message.Event)):
        assert any(_matches(key, event.routing_key) for key in keys), event.message_type


def test_every_durable_queue_has_limits_and_a_way_out() -> None:
    policies = {policy["pattern"]: policy["definition"] for policy in definitions.build()["policies"]}
    for queue in (q["name"] for q in definitions.build()["queues"]):
        found = [d for pattern, d in policies.items() if _fits(pattern, queue)]
        assert len(found) == 1, f"{queue} must have exactly one policy"
        assert found[0]["overflow"] == "reject-publish"
        assert found[0]["max-length"] > 0


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_touch_its_own_queues_only(service: str) -> None:
    permission = next(p for p in definitions.build()["permissions"] if p["user"] == service)
    for other in SERVICES:
        for queue in TOPOLOGIES[other].queues:
            for right in ("configure", "write", "read"):
                assert _fits(permission[right], queue.name) == (other == service), (right, queue.name)
        topology = TOPOLOGIES[other]
        for name in (*(e.name for e in topology.exchanges), *(rung.queue for rung in topology.rungs)):
            for right in ("configure", "write", "read"):
                assert _fits(permission[right], name) == (other == service), (right, name)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_configures_nothing_that_is_shared_and_never_writes_to_the_default_exchange(
    service: str,
) -> None:
    permission = next(p for p in definitions.build()["permissions"] if p["user"] == service)
    for exchange in SHARED_EXCHANGES:
        assert not _fits(permission["configure"], exchange.name)
        assert _fits(permission["write"], exchange.name) == (exchange.name in TOPOLOGIES[service].writes)
    for name in ("amq.default", "amq.topic", "", "retry"):
        assert not _fits(permission["write"], name)


@pytest.mark.parametrize("service", ["stock-data", "email"])
def test_a_service_that_only_answers_sends_no_commands_and_no_requests(service: str) -> None:
    assert not {COMMANDS, RPC} & set(TOPOLOGIES[service].writes)


def test_every_event_may_be_published_by_its_owner_and_by_no_other() -> None:
    rights = _topic_rights(EVENTS)
    events = {m.routing_key: m for m in broker.messages() if issubclass(m, message.Event)}
    owners = {key: [u for u, right in rights.items() if _fits(right["write"], key)] for key in events}
    assert owners.pop("parked.changed") == list(SERVICES)
    assert all(len(users) == 1 for users in owners.values()), owners


def test_every_live_message_may_be_published_by_its_senders_and_by_no_other() -> None:
    rights = _topic_rights(LIVE)
    live = [m for m in broker.messages() if issubclass(m, message.LiveMessage)]
    assert live
    for kind in live:
        key = kind.routing_key.replace("{batch_id}", "5f")
        allowed = tuple(user for user in SERVICES if _fits(rights[user]["write"], key))
        assert allowed == kind.senders, kind.message_type


def test_a_gateway_may_bind_what_its_live_feed_binds() -> None:
    bound = {binding for queue in consumers.LIVE_QUEUES for binding in queue.bindings}
    assert bound == set(TOPOLOGIES[GATEWAY].listens)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_bind_its_queues_to_the_keys_of_its_topology_only(service: str) -> None:
    permission = next(p for p in definitions.build()["permissions"] if p["user"] == service)
    binds = TOPOLOGIES[service].binds
    for exchange in SHARED_EXCHANGES:
        assert _fits(permission["read"], exchange.name) == (exchange.name in binds), exchange.name
    keys = {key for t in TOPOLOGIES.values() for found in t.binds.values() for key in found}
    for topic in (EVENTS, LIVE):
        pattern = _topic_rights(topic)[service]["read"]
        for key in (*keys, "#", "*", "*.*"):
            assert _fits(pattern, key) == (key in binds.get(topic, ())), (topic, key)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_binds_to_no_direct_exchange_but_that_of_its_replies(service: str) -> None:
    permission = next(p for p in definitions.build()["permissions"] if p["user"] == service)
    assert not _fits(permission["read"], COMMANDS)
    assert not _fits(permission["read"], RPC)
    assert _fits(permission["read"], REPLIES) == (RPC in TOPOLOGIES[service].writes)


def test_commands_and_requests_reach_the_exchange_of_their_service_without_a_binding_of_it() -> None:
    bindings = definitions.build()["bindings"]
    ways = {(b["source"], b["routing_key"]): b for b in bindings if b["source"] in (COMMANDS, RPC)}
    queues = [q for t in TOPOLOGIES.values() for q in t.queues if q.exchange in (COMMANDS, RPC)]
    assert ways.keys() == {(queue.exchange, queue.name) for queue in queues}
    for queue in queues:
        way = ways[queue.exchange, queue.name]
        assert (way["destination"], way["destination_type"]) == (queue.service, "exchange")


@pytest.mark.parametrize("service", SERVICES)
def test_the_ladder_rises_and_leads_back_to_its_own_service(service: str) -> None:
    delays = [rung.delay_s for rung in ladder(service)]
    assert delays == sorted(delays)
    policies = {policy["name"]: policy["definition"] for policy in definitions.build()["policies"]}
    for rung in TOPOLOGIES[service].rungs:
        assert policies[rung.queue]["dead-letter-exchange"] == service


def test_the_file_holds_no_user_and_no_password() -> None:
    text = definitions.FILE.read_text()
    assert "users" not in json.loads(text)
    assert "password" not in text


def _topic_rights(exchange: str) -> dict[str, dict[str, str]]:
    return {p["user"]: p for p in definitions.build()["topic_permissions"] if p["exchange"] == exchange}


def _fits(pattern: str, name: str) -> bool:
    return re.search(pattern, name) is not None


def _matches(key: str, routing_key: str) -> bool:
    want, have = key.split("."), routing_key.split(".")
    return len(want) == len(have) and all(w in ("*", h) for w, h in zip(want, have, strict=True))
