"""GhostNet's and ParameterNet's names: the published ParameterNet code and timm's GhostNet."""

RULES = (
    (r"\.primary_conv(?=\.)", ".primary_conv.0"),
    (r"\.primary_bn(?=\.)", ".primary_conv.1"),
    (r"\.cheap_conv(?=\.)", ".cheap_operation.0"),
    (r"\.cheap_bn(?=\.)", ".cheap_operation.1"),
    (r"\.shortcut_dw(?=\.)", ".shortcut.0"),
    (r"\.shortcut_dw_bn(?=\.)", ".shortcut.1"),
    (r"\.shortcut_pw(?=\.)", ".shortcut.2"),
    (r"\.shortcut_pw_bn(?=\.)", ".shortcut.3"),
    (r"^blocks_(\d+)_(\d+)_(conv|bn1)(?=\.)", r"blocks.\1.\2.\3"),
    (r"^blocks_(\d+)_(\d+)(?=\.)", r"blocks.\1.\2"),
)
