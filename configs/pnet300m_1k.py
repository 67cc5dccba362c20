"""ParameterNet-300M on ImageNet-1K from scratch (arXiv 2306.14525).

    python -m pnet_jax.main --config=configs/pnet300m_1k.py --workdir=runs/pnet300m_1k
    python -m pnet_jax.main --config=configs/pnet300m_1k.py:demo --workdir=runs/pnet300m_1k_demo

Expected: 77.2% top-1 (paper). The second command is the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.scratch_1k("parameternet_300m")
    return recipes.at_size(config, size, recipes.demo_coarse)
