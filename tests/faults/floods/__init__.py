"""What the guests send. A flood goes on until its time is up, and returns what it has sent."""
