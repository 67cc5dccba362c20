"""Saving and restoring runs; the only place that knows Orbax."""
