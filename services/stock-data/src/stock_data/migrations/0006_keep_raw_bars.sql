-- Raw bars of upstreams as they were answered; of each symbol the days without a hole that are kept.
CREATE TABLE kept_ranges (
    source text NOT NULL,
    symbol text NOT NULL CHECK (symbol ~ '^[A-Z0-9.^=-]{1,15}$'),
    currency text NOT NULL,
    first_day date NOT NULL,
    last_day date NOT NULL,
    bars int NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, symbol),
    CHECK (first_day <= last_day)
);

CREATE TABLE kept_bars (
    source text NOT NULL,
    symbol text NOT NULL,
    day date NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume numeric NOT NULL CHECK (volume >= 0),
    is_repeated boolean NOT NULL,
    PRIMARY KEY (source, symbol, day),
    CHECK (low > 0 AND low <= least(open, close) AND high >= greatest(open, close))
);
