"""Addresses: where in an American address its parts are, from the number to the ZIP code, letter by letter."""
