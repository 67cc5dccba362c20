"""Pure functions on arrays: no Flax, no state, no configuration."""
