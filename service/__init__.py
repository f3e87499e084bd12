"""What runs: the BentoML service, and the same app behind uvicorn with the hot routes first."""
