"""The wire formats: what goes over HTTP, and nothing of what it means."""
