"""Dynamic EfficientNetV2-B0, four experts, on ImageNet-1K from scratch (arXiv 2306.14525).

    python -m pnet_jax.main --config=configs/efficientnetv2_b0_dynamic_1k.py \
    --workdir=runs/efficientnetv2_b0_dynamic_1k
    python -m pnet_jax.main --config=configs/efficientnetv2_b0_dynamic_1k.py:demo \
    --workdir=runs/efficientnetv2_b0_dynamic_1k_demo

Expected: the paper prints only what ImageNet-22K changes (efficientnetv2_b0_dynamic_22k.py). The
second command is the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.scratch_1k("efficientnetv2_b0_dynamic")
    return recipes.at_size(config, size, recipes.demo_coarse)
