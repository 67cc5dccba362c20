"""Dynamic EfficientNetV2-B0, four experts, on ImageNet-22K (arXiv 2306.14525).

    python -m pnet_jax.main --config=configs/efficientnetv2_b0_dynamic_22k.py \
    --workdir=runs/efficientnetv2_b0_dynamic_22k
    python -m pnet_jax.main --config=configs/efficientnetv2_b0_dynamic_22k.py:demo \
    --workdir=runs/efficientnetv2_b0_dynamic_22k_demo

Expected: 1.7 points more top-1 on ImageNet-1K after fine-tuning than from scratch (paper). The
second command is the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.pretrain_22k("efficientnetv2_b0_dynamic")
    return recipes.at_size(config, size, recipes.demo_fine)
