"""A model version on disk: input schema, variants, parity, calibration, manifest, store."""
