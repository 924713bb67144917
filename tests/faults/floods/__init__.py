"""The floods that guests send. Each goes on until its time is up, and returns what it has sent."""
