"""Many rows: a file, scored by a running service; a table of any size, scored by Spark or Ray."""
