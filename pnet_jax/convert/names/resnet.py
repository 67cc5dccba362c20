"""timm's names of ResNet."""

RULES = (
    (r"^layer(\d+)_(\d+)(?=\.)", r"layer\1.\2"),
    (r"\.downsample_conv(?=\.)", ".downsample.0"),
    (r"\.downsample_bn(?=\.)", ".downsample.1"),
    (r"^classifier(?=\.)", "fc"),
)
