"""The embedded host: a supervisor of its own instead of systemd."""
