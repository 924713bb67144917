from __future__ import annotations

from prometheus_client import REGISTRY

from chassis.broker.rabbitmq import Link


async def _opened(_: Link) -> None: ...


def test_a_link_is_measured_before_it_was_ever_lost_or_blocked() -> None:
    Link("amqp://127.0.0.1/", name="never-held", on_open=_opened)
    for name in ("tickwire_broker_blocked", "tickwire_broker_connected"):
        assert REGISTRY.get_sample_value(name, {"link": "never-held"}) == 0
