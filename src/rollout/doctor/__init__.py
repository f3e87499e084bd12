"""What is wrong here: checks that change nothing, and that work when little else does."""
