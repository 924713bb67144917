-- Each attempt leaves dead entries in the indexes by which what is due is found: at the usual fifth of the table, looks
-- would pass over 200,000 of them where a million deliveries are kept.
ALTER TABLE webhook_deliveries SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
