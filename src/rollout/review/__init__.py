"""The review queue: predictions that a person should look at."""
