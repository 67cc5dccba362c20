"""Swin-300M with dynamic linear layers on ImageNet-22K (arXiv 2306.14525).

    python -m pnet_jax.main --config=configs/swin_300m_dynamic_22k.py --workdir=runs/swin_dyn_22k
    python -m pnet_jax.main --config=configs/swin_300m_dynamic_22k.py:demo
    --workdir=runs/swin_dyn_22k_demo

Expected: after fine-tuning on ImageNet-1K, 2.2 points of top-1 more than from scratch (paper).
  The second command is the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.pretrain_22k("swin_300m_dynamic")
    config.model.drop_rate = 0.0  # stand-in, as in Swin-T
    return recipes.at_size(config, size, recipes.demo_fine)
