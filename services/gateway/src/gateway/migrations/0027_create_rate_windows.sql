-- What all gateways have taken of the limit of a caller and class in a window, and spent of that.
CREATE TABLE rate_windows (
    who text NOT NULL,
    class text NOT NULL,
    -- Unix time: windows are aligned to the clock.
    starts_at bigint NOT NULL,
    taken bigint NOT NULL,
    spent bigint NOT NULL,
    -- To the gateway that asked last.
    granted bigint NOT NULL,
    ends_at bigint NOT NULL,
    PRIMARY KEY (who, class, starts_at)
) WITH (fillfactor = 50);
CREATE INDEX rate_windows_end ON rate_windows (ends_at);
