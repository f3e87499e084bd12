"""Models of the kinds that teams have, small: each is packed, served, and compared with itself in Python."""
