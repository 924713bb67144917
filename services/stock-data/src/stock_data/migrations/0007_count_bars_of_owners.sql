-- How many bars were brought for each owner: one owner fills half of the room at most.
CREATE TABLE kept_owners (
    owner_id text PRIMARY KEY,
    bars bigint NOT NULL
);
