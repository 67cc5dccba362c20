"""Measuring this project: `python -m pnet_jax.bench --help`."""
