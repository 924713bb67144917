"""The settings of batch-processor."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from batch_processor.limits import rules
from chassis.egress.destinations import InternalTargets
from chassis.settings import Settings, readable_by

Role = Literal["coordinator", "worker"]
ROLES: tuple[Role, ...] = ("coordinator", "worker")


class BatchProcessorSettings(Settings):
    """The settings of batch-processor, beside the shared ones."""

    prefix: ClassVar[str] = "BATCH_PROCESSOR_"

    host: str = Field(
        default="127.0.0.1",
        description="address of the internal HTTP listener",
        examples=["0.0.0.0"],  # noqa: S104 - an example for containers
    )
    port: int = Field(
        default=8083, ge=1, le=65535, description="port of the internal HTTP listener", examples=["8083"]
    )
    roles: tuple[Role, ...] = Field(
        default=ROLES,
        min_length=1,
        description="what this process does, separated by commas: coordinator (intake, due times, answers), "
        "worker (runs items)",
        examples=["coordinator,worker"],
    )
    intake_concurrency: int = Field(
        default=2, ge=1, le=32, description="groups of incoming messages stored at once", examples=["2"]
    )
    worker_concurrency: int = Field(
        default=16,
        ge=1,
        le=64,
        description="chunks that run at once, each in a process of its own; a quarter is reserved for owners "
        "without running chunks",
        examples=["16"],
    )
    item_memory_mb: int = Field(
        default=256,
        ge=64,
        le=65_536,
        description="MiB of memory for a process that runs items, or computes for them; an item that needs "
        "more fails",
        examples=["256"],
    )
    internal_targets: Annotated[str, readable_by(InternalTargets.parse)] = Field(
        default="",
        description="non-public addresses that items of http.request may reach, separated by "
        "commas: an address, an address:port or a network; none: only public ones",
        examples=["10.1.2.3:8080,10.2.0.0/16"],
    )
    limits: Annotated[str, readable_by(rules.parse)] = Field(
        default="",
        description="limits over all owners and workers, separated by commas: KEY=ITEMS for items that may "
        "run at once, KEY=ITEMS/SECONDS for those that may begin in that time; a key is operation:NAME, or "
        "one that operations declare, like provider:alpaca",
        examples=["provider:alpaca=200/60,operation:http.request=5"],
    )
    process_pool_size: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes for operations that compute, started when first needed",
        examples=["2"],
    )
    chunk_size: int = Field(
        default=500,
        ge=1,
        le=5000,
        description="most items in a chunk; an operation may choose fewer",
        examples=["500"],
    )
    lease_s: float = Field(
        default=15,
        ge=5,
        le=3600,
        description="seconds without a renewed lease after which another worker may claim a chunk",
        examples=["15"],
    )
    upload_expires_s: float = Field(
        default=86_400,
        ge=1,
        le=31 * 86_400,
        description="seconds after which a batch whose upload was not finished expires",
        examples=["86400"],
    )
    retention_days: int = Field(
        default=30, ge=1, le=3650, description="days that finished batches are kept", examples=["30"]
    )
    schedules_per_owner: int = Field(
        default=100, ge=1, le=10_000, description="schedules that one owner may have", examples=["100"]
    )
    schedule_runs_kept: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="runs that the history of a schedule keeps, none for longer than finished batches",
        examples=["500"],
    )

    @field_validator("roles", mode="before")
    @classmethod
    def _split_roles(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )
