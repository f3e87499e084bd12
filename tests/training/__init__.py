"""Recipes, checks of the data, and the gate."""
