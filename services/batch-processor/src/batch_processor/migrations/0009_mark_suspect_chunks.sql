-- Items that were at work when their process died: they run one at a time, until the one to blame is found.
ALTER TABLE chunks ADD COLUMN suspect boolean NOT NULL DEFAULT false;
