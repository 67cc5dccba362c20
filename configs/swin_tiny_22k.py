"""Swin-T on ImageNet-22K (arXiv 2103.14030).

    python -m pnet_jax.main --config=configs/swin_tiny_22k.py --workdir=runs/swin_tiny_22k
    python -m pnet_jax.main --config=configs/swin_tiny_22k.py:demo --workdir=runs/swin_tiny_22k_demo

Expected: 80.9% top-1 on ImageNet-1K after fine-tuning (arXiv 2306.14525). The second command is
  the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.pretrain_22k("swin_tiny")
    config.model.drop_rate = 0.0
    config.model.drop_path_rate = 0.2  # stand-in
    return recipes.at_size(config, size, recipes.demo_fine)
