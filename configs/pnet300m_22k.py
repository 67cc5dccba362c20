"""ParameterNet-300M on ImageNet-22K (arXiv 2306.14525).

    python -m pnet_jax.main --config=configs/pnet300m_22k.py --workdir=runs/pnet300m_22k
    python -m pnet_jax.main --config=configs/pnet300m_22k.py:demo --workdir=runs/pnet300m_22k_demo

Expected: 79.1% top-1 on ImageNet-1K after fine-tuning with pnet300m_1k_ft.py (paper). The second
  command is the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.pretrain_22k("parameternet_300m")
    return recipes.at_size(config, size, recipes.demo_fine)
