"""Settings of stock-data, from environment variables that start with STOCK_DATA_."""

from __future__ import annotations

from datetime import date
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from chassis.settings import Settings
from contracts.stocks import Day

ProviderName = Literal["embedded", "alpaca"]


def _needed_by(provider: ProviderName) -> AfterValidator:
    """Require a value when `provider` is one of `providers`, a field that must be declared before."""

    def require(value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and provider in info.data.get("providers", ()):
            raise ValueError(f"must be set, because {provider} is one of the providers")
        return value

    return AfterValidator(require)


Providers = Annotated[
    tuple[ProviderName, ...],
    BeforeValidator(
        lambda text: [part.strip() for part in text.split(",")] if isinstance(text, str) else text
    ),
    Field(min_length=1),
]
AlpacaSecret = Annotated[SecretStr | None, _needed_by("alpaca"), Field(validate_default=True)]


class StockDataSettings(Settings):
    """The settings of stock-data, beside the shared ones."""

    prefix: ClassVar[str] = "STOCK_DATA_"

    host: str = Field(
        default="127.0.0.1",
        description="address of the internal HTTP listener",
        examples=["0.0.0.0"],  # noqa: S104
    )
    port: int = Field(
        default=8081, ge=0, le=65535, description="port of the internal HTTP listener", examples=["8081"]
    )
    providers: Providers = Field(
        default=("embedded",),
        description="providers of data, separated by commas; the first that answers is used",
        examples=["alpaca,embedded"],
    )
    alpaca_url: str = Field(
        default="https://data.alpaca.markets",
        pattern=r"^https?://",
        description="address of Alpaca's market data",
        examples=["https://data.alpaca.markets"],
    )
    alpaca_key_id: AlpacaSecret = Field(
        default=None,
        description="Alpaca's key id, needed when alpaca is a provider",
        examples=["PK0123456789"],
    )
    alpaca_secret_key: AlpacaSecret = Field(
        default=None, description="the secret that goes with the key id", examples=["the-secret"]
    )
    alpaca_feed: Literal["iex", "sip", "delayed_sip"] = Field(
        default="iex", description="Alpaca's feed; the free plan has iex", examples=["iex"]
    )
    alpaca_timeout_s: float = Field(
        default=2.0, gt=0, le=30, description="seconds that one call to Alpaca may take", examples=["2"]
    )
    quote_ttl_s: float = Field(
        default=1.0, ge=0, le=60, description="seconds that an upstream's quote is kept", examples=["1"]
    )
    replay_enabled: bool | None = Field(
        default=None,
        description="whether history is replayed as live ticks; unset: when embedded is the first provider",
        examples=["true"],
    )
    replay_speed: float = Field(
        default=60.0,
        gt=0,
        le=100_000,
        description="market seconds that pass in one second of the replay",
        examples=["60"],
    )
    replay_ticks_per_s: float = Field(
        default=1.0, gt=0, le=5_000, description="ticks a second of each replayed symbol", examples=["1"]
    )
    replay_start_day: Day = Field(
        default=date(2012, 5, 21),
        description="first day that is replayed; on the default one all five companies have a previous close",
        examples=["2000-03-01"],
    )
    alerts_per_owner: int = Field(
        default=500, ge=1, le=100_000, description="most alerts of one owner that can fire", examples=["500"]
    )
    kept_bars: int = Field(
        default=10_000_000,
        ge=0,
        le=1_000_000_000,
        description="most raw bars of upstreams that backfills store, about 100 bytes each",
        examples=["10000000"],
    )

    @property
    def replays(self) -> bool:
        """Whether the feed runs; simulated ticks never replace a real upstream unless that is configured."""
        return self.providers[0] == "embedded" if self.replay_enabled is None else self.replay_enabled
