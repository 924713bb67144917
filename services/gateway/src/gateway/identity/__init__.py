"""Identity: users, API keys and their rights."""
