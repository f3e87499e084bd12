"""A bundle in memory: loading, micro-batching, decisions, and the engine where all protocols meet."""
