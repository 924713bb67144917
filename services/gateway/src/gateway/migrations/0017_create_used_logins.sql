-- Login addresses that were used: each opens the console once, whichever gateway it comes to.
CREATE TABLE used_logins (
    id text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
