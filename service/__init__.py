"""What runs: the BentoML service, and the same app behind granian with the hot route first."""
