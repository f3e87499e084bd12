"""Who gets which arm: assignment (pure) and the split policy."""
