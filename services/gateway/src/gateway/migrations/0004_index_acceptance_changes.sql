-- Old acceptances are found by when they changed last.
CREATE INDEX acceptances_changed_at ON acceptances USING brin (changed_at);
