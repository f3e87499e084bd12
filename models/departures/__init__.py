"""Departures: how many flights are scheduled to leave an airport of New York in an hour, from flights of 2013."""
