"""The loop: from reviewed labels to the next version on trial."""
