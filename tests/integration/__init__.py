"""Services and their parts on real servers, which the tests start."""
