"""The demo data set: emoji, one concept drawn by several design teams, rendered on first use."""

from pnet_jax.data.emoji.builder import build

__all__ = ["build"]
