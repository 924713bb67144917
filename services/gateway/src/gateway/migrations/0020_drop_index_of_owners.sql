-- Nothing lists acceptances by owner: what an owner has accepted is asked of the service that does it. Every acceptance
-- and every change of its status wrote an entry here.
DROP INDEX acceptances_owner;
