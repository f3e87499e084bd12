"""From evidence to figures: pure functions of what was observed."""
