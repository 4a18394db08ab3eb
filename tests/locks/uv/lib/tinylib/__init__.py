"""A package of the source itself."""
