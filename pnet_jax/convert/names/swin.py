"""timm's names of Swin. Its tables of offsets and masks are no weights and are in no file."""

RULES = (
    (r"^layers_(\d+)_blocks_(\d+)(?=\.)", r"layers.\1.blocks.\2"),
    (r"^layers_(\d+)_downsample(?=\.)", r"layers.\1.downsample"),
    (r"^head(?=\.)", "head.fc"),
)
