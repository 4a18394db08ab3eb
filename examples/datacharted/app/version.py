"""The release that this code is; every answer names it."""

VERSION = "v1"
