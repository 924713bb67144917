-- Attempts that were begun at destination domains with a rate, by the slot of time in which they began.
CREATE TABLE domain_charges (
    domain text NOT NULL,
    at timestamptz NOT NULL,
    attempts int NOT NULL,
    PRIMARY KEY (domain, at)
);
CREATE INDEX domain_charges_by_time ON domain_charges (at);
