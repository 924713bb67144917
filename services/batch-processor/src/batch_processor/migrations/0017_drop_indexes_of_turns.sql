-- Lanes took their place: `chunks_in_lanes` finds what an owner has ready, `chunks_in_flight_by_stamp` what it has at
-- work. Each cost an entry for every chunk, and the second led the planner past the dead ones of an owner.
DROP INDEX chunks_by_owner;
DROP INDEX chunks_at_work;
