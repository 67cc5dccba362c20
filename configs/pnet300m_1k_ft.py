"""ParameterNet-300M from ImageNet-22K to ImageNet-1K (arXiv 2306.14525).

    python -m pnet_jax.main --config=configs/pnet300m_1k_ft.py --workdir=runs/pnet300m_1k_ft
    python -m pnet_jax.main --config=configs/pnet300m_1k_ft.py:demo
    --workdir=runs/pnet300m_1k_ft_demo

It starts from the best checkpoint in runs/pnet300m_22k; another place is given by
--config.init_from=DIR.

Expected: 79.1% top-1 (paper). The second command is the same recipe at laptop size.
"""

import ml_collections

from pnet_jax import recipes


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """`size` is "full" or "demo"."""
    config = recipes.finetune_1k("parameternet_300m", init_from="runs/pnet300m_22k")
    return recipes.at_size(config, size, recipes.demo_coarse)
