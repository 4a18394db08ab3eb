"""Scripts that a release's own python runs; nothing here is ever imported."""
