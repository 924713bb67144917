-- The one row of the replay: which leader it has, and how far it is. A start day that was changed begins anew.
CREATE TABLE replay (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    term bigint NOT NULL,
    start_day date NOT NULL,
    is_same_replay boolean NOT NULL DEFAULT true,
    replayed timestamptz,
    shown_at timestamptz
);
