"""Bulletproof deploys and runs Python web apps on your own Linux servers."""

__version__ = "0.1.0"
