"""Short routes: thin aliases of `/v1` routes."""
