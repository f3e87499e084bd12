"""Load: the comparison with other servers."""
