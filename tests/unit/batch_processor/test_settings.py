"""Settings of batch-processor."""

from __future__ import annotations

import pytest

from batch_processor.settings import BatchProcessorSettings
from chassis.settings import InvalidSettings, load

NEEDED = {"RABBITMQ_URL": "amqp://x", "POSTGRES_DSN": "postgresql://x"}


def test_by_default_one_process_has_every_role() -> None:
    assert load(BatchProcessorSettings, NEEDED).roles == ("coordinator", "worker")


def test_roles_are_separated_by_commas() -> None:
    assert load(BatchProcessorSettings, {**NEEDED, "BATCH_PROCESSOR_ROLES": " worker, "}).roles == ("worker",)


@pytest.mark.parametrize("roles", ["", "boss"])
def test_an_unknown_or_missing_role_is_named(roles: str) -> None:
    with pytest.raises(InvalidSettings, match="BATCH_PROCESSOR_ROLES"):
        load(BatchProcessorSettings, {**NEEDED, "BATCH_PROCESSOR_ROLES": roles})
