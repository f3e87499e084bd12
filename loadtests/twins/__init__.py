"""The small model of the comparison: version 2 of the demo's digits."""
