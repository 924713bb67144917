-- Until when what a mail holds stays past its retention, since it is to be sent again; null: it goes when that ends.
ALTER TABLE emails ADD COLUMN kept_until timestamptz;
