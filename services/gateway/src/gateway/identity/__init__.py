"""Who calls: users, API keys and what they may do."""
