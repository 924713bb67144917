-- One row for each backup of the installation that is complete; `make backup` writes it.
CREATE TABLE backups (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    bytes bigint NOT NULL
);
