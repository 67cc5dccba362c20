"""Swin-T on ImageNet-1K from scratch (arXiv 2103.14030).

    python -m pnet_jax.main --config=configs/swin_tiny_1k.py --workdir=runs/swin_tiny_1k
    python -m pnet_jax.main --config=configs/swin_tiny_1k.py:demo --workdir=runs/swin_tiny_1k_demo

Expected: 81.3% top-1 with the mixing of images and RandAugment of its paper, less without them as
  here. The second command is the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.scratch_1k("swin_tiny")
    config.model.drop_rate = 0.0
    config.model.drop_path_rate = 0.2
    return recipes.at_size(config, size, recipes.demo_coarse)
