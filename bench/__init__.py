"""Measurements against what people do today; run from the repository's root."""
