"""What the site has that does not lie in docs/."""
