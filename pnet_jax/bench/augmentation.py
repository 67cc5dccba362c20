"""What augmentation costs of a TPU that is not there, each part of it and all of it."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from pnet_jax.augment.mixing import Mixing
from pnet_jax.augment.policy import Augmented, Policy
from pnet_jax.augment.rand_augment import RandAugment
from pnet_jax.parallel.ahead_of_time import Compiled, compile_step, tpu_devices
from pnet_jax.parallel.mesh import batch_sharding, make_mesh, replicated

_RAND_AUGMENT = RandAugment.parse("rand-m9-mstd0.5-inc1")
_MIXING = Mixing(mixup_alpha=0.2, cutmix_alpha=1.0)

POLICIES = {
    "flip, normalise": Policy(),
    "and random erasing": Policy(random_erasing=0.25),
    "and mixup or CutMix": Policy(mixing=_MIXING),
    "and RandAugment": Policy(rand_augment=_RAND_AUGMENT),
    "all": Policy(rand_augment=_RAND_AUGMENT, random_erasing=0.25, mixing=_MIXING),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """XLA's figures of a policy compiled alone, of one chip and one batch."""

    policy: str
    compiled: Compiled


def costs(topology: str, *, batch_size: int, image_size: int) -> Iterator[Cost]:
    """Compiles each of POLICIES for the chips of `topology`, `batch_size` images a chip.

    Loops whose length the images decide count once, as XLA counts them: a round of RandAugment's
    tables and one of its warps in each layer, more than which is rare.

    Raises:
      UserError: if libtpu is not installed or does not know the topology.
    """
    mesh = make_mesh("data=-1", tpu_devices(topology))
    shape = (batch_size * mesh.size, image_size, image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=batch_sharding(mesh))
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))

    for name, policy in POLICIES.items():

        def augment(images: jax.Array, step: jax.Array, policy: Policy = policy) -> Augmented:
            key = jax.random.fold_in(jax.random.key(0), step)
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return policy(images, key, jnp.bfloat16)

        compiled = compile_step(jax.jit(augment), images, step, devices=list(mesh.devices.flat))
        yield Cost(name, compiled)
