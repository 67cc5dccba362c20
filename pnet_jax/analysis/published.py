"""Published accuracies, each with its source: the one place that figures take them from.

Top-1 on ImageNet-1K in percent. Multiply-adds and parameters are not here: they are traced from the
network itself.
"""

from typing import Any, NamedTuple

# Accuracies are read off the paper's figure to about 0.05; differences are printed in its text.
PARAMETERNET = "Han et al., ParameterNet, arXiv 2306.14525"
SWIN = "Liu et al., Swin Transformer, github.com/microsoft/Swin-Transformer"
EFFICIENTNETV2 = "Tan and Le, EfficientNetV2, github.com/google/automl"


class Published(NamedTuple):
    """What was published of one network; None where nothing was."""

    label: str
    family: str
    model: str  # of `list_models()`
    source: str
    top1_1k: float | None = None  # trained on ImageNet-1K only
    top1_22k: float | None = None  # pretrained on ImageNet-22K (21K), then fine-tuned
    gain: float | None = None  # of the pretraining, where only the difference was published
    image_size: int = 224
    fields: dict[str, Any] = {}  # noqa: RUF012 - of the model; never written to
    static_model: str | None = None  # whose dynamic form it is

    @property
    def gain_22k(self) -> float | None:
        """Top-1 that pretraining adds, in points."""
        if self.gain is None and self.top1_1k is not None and self.top1_22k is not None:
            return round(self.top1_22k - self.top1_1k, 2)
        return self.gain


# The published code's router, with which parameters are as printed in the paper.
_CODE: dict[str, Any] = {"routing": "sigmoid_linear"}

NETWORKS = (
    Published("300M", "GhostNet", "ghostnet_300m", PARAMETERNET, 76.3, 75.7),
    Published("600M", "GhostNet", "ghostnet_600m", PARAMETERNET, 78.6, 78.3),
    Published(
        "300M",
        "ParameterNet",
        "parameternet_300m",
        PARAMETERNET,
        77.2,
        79.1,
        fields=_CODE,
        static_model="ghostnet_300m",
    ),
    Published(
        "600M",
        "ParameterNet",
        "parameternet_600m",
        PARAMETERNET,
        79.0,
        81.6,
        fields=_CODE,
        static_model="ghostnet_600m",
    ),
    Published("300M", "Swin", "swin_300m", PARAMETERNET, gain=-2.2),
    Published(
        "300M dynamic",
        "Swin",
        "swin_300m_dynamic",
        PARAMETERNET,
        gain=2.2,
        static_model="swin_300m",
    ),
    Published("T", "Swin", "swin_tiny", SWIN, 81.2, 80.9),
    Published("S", "Swin", "swin_small", SWIN, 83.2, 83.2),
    Published("B", "Swin", "swin_base", SWIN, 83.5, 85.2),
    # The accuracies without pretraining are Google's, the gains of B0 are ParameterNet's.
    Published("B0", "EfficientNetV2", "efficientnetv2_b0", EFFICIENTNETV2, 78.7),
    Published("B1", "EfficientNetV2", "efficientnetv2_b1", EFFICIENTNETV2, 79.8, image_size=240),
    Published("B2", "EfficientNetV2", "efficientnetv2_b2", EFFICIENTNETV2, 80.5, image_size=260),
    Published("B3", "EfficientNetV2", "efficientnetv2_b3", EFFICIENTNETV2, 82.1, image_size=300),
    Published(
        "S", "EfficientNetV2", "efficientnetv2_s", EFFICIENTNETV2, 83.9, 84.9, image_size=384
    ),
    Published("B0", "EfficientNetV2", "efficientnetv2_b0", PARAMETERNET, gain=-1.1),
    Published(
        "B0 dynamic",
        "EfficientNetV2",
        "efficientnetv2_b0_dynamic",
        PARAMETERNET,
        gain=1.7,
        static_model="efficientnetv2_b0",
    ),
)


class Experts(NamedTuple):
    """A point of the paper's ablation: GhostNet-300M with so many experts."""

    num_experts: int
    gain: float  # of pretraining on ImageNet-22K, in points of top-1
    model: str
    fields: dict[str, Any]


# One expert is the static network. From PARAMETERNET.
EXPERTS = (
    Experts(1, -0.6, "ghostnet_300m", {}),
    Experts(4, 1.9, "parameternet_300m", _CODE),  # its own number
    Experts(8, 1.7, "parameternet_300m", {"num_experts": 8, **_CODE}),
)
