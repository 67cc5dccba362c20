"""EfficientNetV2-B0, static, on ImageNet-1K from scratch (arXiv 2306.14525).

    python -m pnet_jax.main --config=configs/efficientnetv2_b0_1k.py \
    --workdir=runs/efficientnetv2_b0_1k
    python -m pnet_jax.main --config=configs/efficientnetv2_b0_1k.py:demo \
    --workdir=runs/efficientnetv2_b0_1k_demo

Expected: the paper prints only what ImageNet-22K changes (efficientnetv2_b0_22k.py); the network's
own authors report 78.7% top-1 with their recipe (arXiv 2104.00298, its code). The second command is
the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.scratch_1k("efficientnetv2_b0")
    return recipes.at_size(config, size, recipes.demo_coarse)
