"""Mechanism without policy: files, processes, locks and probes."""
