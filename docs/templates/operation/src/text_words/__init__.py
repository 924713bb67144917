"""An operation of Tickwire that counts words."""
