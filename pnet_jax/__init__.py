"""pnet_jax: ParameterNet (arXiv 2306.14525) in JAX and Flax, for pretraining on TPU and GPU."""

__version__ = "0.1.0"
