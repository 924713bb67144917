"""Templates of mails: kept in versions that never change, rendered in processes of their own."""
