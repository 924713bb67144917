-- Volumes may have fractions of a share. `volume` stays the whole number, which the release before reads.
ALTER TABLE bars ADD COLUMN volume_fraction numeric NOT NULL DEFAULT 0
    CHECK (volume_fraction >= 0 AND volume_fraction < 1);
