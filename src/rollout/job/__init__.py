"""A large file of rows, scored by a running service."""
