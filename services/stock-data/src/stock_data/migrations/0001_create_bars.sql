CREATE TABLE instruments (
    symbol text PRIMARY KEY CHECK (symbol ~ '^[A-Z0-9.^=-]{1,15}$'),
    name text NOT NULL,
    exchange text NOT NULL,
    currency text NOT NULL DEFAULT 'USD',
    source text NOT NULL
);

CREATE TABLE bars (
    symbol text NOT NULL REFERENCES instruments,
    day date NOT NULL,
    open numeric NOT NULL,
    high numeric NOT NULL,
    low numeric NOT NULL,
    close numeric NOT NULL,
    volume bigint NOT NULL CHECK (volume >= 0),
    adjusted_close numeric CHECK (adjusted_close > 0),
    PRIMARY KEY (symbol, day),
    CHECK (low > 0 AND low <= least(open, close) AND high >= greatest(open, close))
) PARTITION BY RANGE (day);

CREATE INDEX bars_day ON bars (day);

DO $$
BEGIN
    FOR year IN 2000..2013 LOOP
        EXECUTE format(
            'CREATE TABLE bars_%s PARTITION OF bars FOR VALUES FROM (%L) TO (%L)',
            year, make_date(year, 1, 1), make_date(year + 1, 1, 1)
        );
    END LOOP;
END $$;

CREATE TABLE bars_other PARTITION OF bars DEFAULT;

CREATE TABLE corporate_actions (
    symbol text NOT NULL REFERENCES instruments,
    day date NOT NULL,
    kind text NOT NULL CHECK (kind IN ('split')),
    ratio numeric NOT NULL CHECK (ratio > 0),
    PRIMARY KEY (symbol, day, kind)
);

CREATE TABLE imports (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    bars int NOT NULL,
    imported_at timestamptz NOT NULL DEFAULT now()
);
