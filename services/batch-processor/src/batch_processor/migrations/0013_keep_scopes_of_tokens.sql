-- What the access token granted that made the schedule or changed it last; NULL for an API key, whose scopes are
-- looked up when a run fires.
ALTER TABLE schedules ADD COLUMN scopes text[];
