"""Saved models: one folder per format, each of which registers what it detects, reads and builds (see `format`)."""
