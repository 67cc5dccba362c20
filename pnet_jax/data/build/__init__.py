"""From what people have of ImageNet (tars, folders, shards) to a data set that training reads."""

from pnet_jax.data.build.convert import Settings, build
from pnet_jax.data.build.manifest import verify

__all__ = ["Settings", "build", "verify"]
