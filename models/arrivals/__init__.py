"""Arrivals: whether a flight from New York will be late, and how long it is in the air, from flights of 2013."""
