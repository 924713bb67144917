"""Unique keys in every combination of requests and states of tasks, against a model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts.batches import FINISHED, INTAKE, GetBatch
from contracts.topology import BATCH_PROCESSOR
from support.gateway_stack import House, RunningGateway

BEGUN = "2026-01-01T00:00:00Z"
# The states of a task, and whether it has begun; "on its way" is one that batch-processor does not know yet.
STATES: dict[str, tuple[str, bool]] = {
    "on its way": ("queued", False),
    "queued": ("queued", False),
    "queued for a retry": ("queued", True),
    "paused": ("paused", False),
    "paused when it had begun": ("paused", True),
    "running": ("running", True),
    "cancelling": ("cancelling", False),
    "completed": ("completed", True),
    "failed": ("failed", True),
    "cancelled": ("cancelled", False),
    "expired": ("expired", False),
}
# Payloads as they are written, and what they have in common if they are the same to a unique key.
PAYLOADS = {"1": "one", '{"a":1,"b":[2]}': "object", '{"b": [2], "a" :1}': "object", "null": "nothing"}
LONG_S, OVER_S = 3600, 0.000_001


@dataclass(frozen=True)
class Asked:
    """A request for a task: `holds` is its `while`, with the length of a period."""

    owner: str
    key: str
    holds: tuple[str, float | None]
    on_conflict: str
    operation: str
    payload: str
    with_idempotency: bool

    def body(self, keys: dict[str, str]) -> bytes:
        """Return the body as it is sent; `keys` leads to names that no other example has."""
        unique: dict[str, Any] = {"key": keys[self.key], "while": self.holds[0]}
        unique |= {"on_conflict": self.on_conflict}
        unique |= {} if self.holds[1] is None else {"period_s": self.holds[1]}
        about = orjson.dumps({"operation": self.operation, "unique": unique})
        return about[:-1] + b',"payload":' + self.payload.encode() + b"}"


ASKED = st.builds(
    Asked,
    owner=st.sampled_from(("ann", "bob")),
    key=st.sampled_from(("a", "a", "b")),
    holds=st.sampled_from(
        (("queued", None), ("running", None), ("running", None), ("period", LONG_S), ("period", OVER_S))
    ),
    on_conflict=st.sampled_from(("return", "return", "reject", "replace")),
    operation=st.sampled_from(("echo", "echo", "echo", "other")),
    payload=st.sampled_from(sorted(PAYLOADS)),
    with_idempotency=st.booleans(),
)
# Either a request, or the next state of one of the tasks, or a request that is repeated.
STEPS = st.lists(
    ASKED | ASKED | st.tuples(st.integers(0, 20), st.sampled_from(sorted(STATES))) | st.integers(0, 20),
    min_size=4,
    max_size=12,
)


@dataclass
class ModelTask:
    """A task that was accepted."""

    id: str
    operation: str
    payload: str
    state: str = "on its way"

    def holds_its_key(self, holds: tuple[str, float | None]) -> bool:
        """Return whether the task still has its key, for a request that says how long keys are held."""
        status, has_begun = STATES[self.state]
        if holds[0] == "period":
            return holds[1] == LONG_S
        if status in FINISHED:
            return False
        return holds[0] == "running" or not (has_begun or status in ("running", "cancelling"))


@dataclass
class ModelKeys:
    """The tasks by the keys that they took last, and the commands that were sent."""

    holders: dict[tuple[str, str], ModelTask] = field(default_factory=dict)
    tasks: list[ModelTask] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)

    def check(self, asked: Asked, answer: httpx.Response) -> None:
        """Compare an answer with what the request should have done, and do it."""
        holder = self.holders.get((asked.owner, asked.key))
        if holder is not None and not holder.holds_its_key(asked.holds):
            holder = None
        is_same = holder is not None and (holder.operation, PAYLOADS[holder.payload]) == (
            asked.operation,
            PAYLOADS[asked.payload],
        )
        refused = asked.on_conflict == "reject" or (asked.on_conflict == "return" and not is_same)
        if holder is not None and refused:
            assert (answer.status_code, answer.json()["type"]) == (409, "/problems/unique-key-in-use")
            assert holder.id in answer.json()["detail"]
            return
        assert answer.status_code == 202, answer.text
        found = answer.json()
        if holder is not None and asked.on_conflict == "return":
            assert (found["id"], found["status"]) == (holder.id, STATES[holder.state][0])
            assert answer.headers["idempotent-replayed"] == "true"
            return
        assert found["status"] == "queued"
        assert "idempotent-replayed" not in answer.headers
        assert found["id"] not in {task.id for task in self.tasks}
        if holder is not None:
            self.commands.append(("batch.cancel.v1", holder.id))
        self.commands.append(("batch.create.v1", found["id"]))
        self.tasks.append(ModelTask(found["id"], asked.operation, asked.payload))
        self.holders[asked.owner, asked.key] = self.tasks[-1]


class StatedTasks:
    """Plays batch-processor: says of every task what the model says."""

    def __init__(self) -> None:
        self.model = ModelKeys()

    async def get(self, request: GetBatch, _: Deadline) -> bytes:
        (task,) = (task for task in self.model.tasks if task.id == str(request.batch_id))
        if task.state == "on its way":
            raise NotFound("No such task.")
        status, has_begun = STATES[task.state]
        state = {"status": status, "started_at": BEGUN if has_begun else None}
        return orjson.dumps({"id": task.id, "kind": "task", "operation": "echo", "counts": {}, **state})


@dataclass(frozen=True)
class KeyCallers:
    """Two owners at one gateway, the tasks as batch-processor has them, and the queue of commands."""

    clients: dict[str, httpx.AsyncClient]
    processor: StatedTasks
    house: House


@pytest.fixture(scope="module")
async def callers(module_house: House) -> AsyncIterator[KeyCallers]:
    processor = StatedTasks()
    await module_house.double(BATCH_PROCESSOR, {GetBatch: processor.get})
    listener: RunningGateway = await module_house.open()
    key = await listener.new_key("batches:write")
    async with listener.client(key) as other:
        yield KeyCallers({"ann": listener.api, "bob": other}, processor, module_house)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    # The search for the smallest example would wait for commands that are not sent.
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
@given(steps=STEPS)
async def test_a_unique_key_has_one_holder_in_every_combination_of_requests_and_states(
    callers: KeyCallers, steps: list[Any]
) -> None:
    await callers.house.purge(INTAKE)
    model = callers.processor.model = ModelKeys()
    keys = {key: str(uuid4()) for key in ("a", "b")}
    answered: list[tuple[Asked, dict[str, str], httpx.Response]] = []
    for step in steps:
        if isinstance(step, Asked):
            headers = {"Content-Type": "application/json"}
            if step.with_idempotency:
                headers["Idempotency-Key"] = f'"{uuid4()}"'
            answer = await callers.clients[step.owner].post(
                "/v1/tasks", content=step.body(keys), headers=headers
            )
            model.check(step, answer)
            if step.with_idempotency and answer.is_success:
                answered.append((step, headers, answer))
        elif isinstance(step, tuple) and model.tasks:
            model.tasks[step[0] % len(model.tasks)].state = step[1]
        elif isinstance(step, int) and answered:
            # Whoever has the key by now: the answer is that of the first time.
            asked, headers, before = answered[step % len(answered)]
            again = await callers.clients[asked.owner].post(
                "/v1/tasks", content=asked.body(keys), headers=headers
            )
            assert (again.json(), again.headers["idempotent-replayed"]) == (before.json(), "true")
    sent = await callers.house.take(INTAKE, len(model.commands)) if model.commands else []
    assert [(m["_"]["type"], m["batch_id"]) for m in sent] == model.commands
