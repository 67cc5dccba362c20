"""Writes the small networks of timm that `tests/test_parity.py` compares with.

    python tests/parity/make_references.py

needs torch and timm (the files were made with torch 2.13.0 and timm 1.0.31), which no test does:
the numbers are in `tests/parity/timm_*.safetensors`. They are those of the networks by name with
fewer channels, and of EfficientNet with fewer blocks, in the format of the other files here:
`weights/*`, `input`, `labels`, `out/logits_eval`, `out/logits_train`, `out/loss_train`,
`out/grad/*` and, after one forward pass in training, `out/after/*`.
"""

import functools
import pathlib
from unittest import mock

import torch
from safetensors.torch import save_file
from timm_alone import stand_in_for_what_timm_lacks
from torch import nn

# The sides of the input, odd and even on the way down: SAME padding tells them apart.
HEIGHT, WIDTH = 40, 52
CLASSES = 10
# A share of the gradients is enough to tell a wrong one.
GRADIENTS = 5

LITE0 = [
    ["ds_r1_k3_s1_e1_c16"],
    ["ir_r2_k3_s2_e6_c24"],
    ["ir_r2_k5_s2_e6_c40"],
    ["ir_r3_k3_s2_e6_c80"],
    ["ir_r3_k5_s1_e6_c112"],
    ["ir_r4_k5_s2_e6_c192"],
    ["ir_r1_k3_s1_e6_c320"],
]
V2_B = [
    ["cn_r1_k3_s1_e1_c16_skip"],
    ["er_r2_k3_s2_e4_c32"],
    ["er_r2_k3_s2_e4_c48"],
    ["ir_r3_k3_s2_e4_c96_se0.25"],
    ["ir_r5_k3_s1_e6_c112_se0.25"],
    ["ir_r8_k3_s2_e6_c192_se0.25"],
]


def efficientnet(arch: list[list[str]], act: type[nn.Module], width: float, depth: float):
    from timm.models import _efficientnet_builder as builder
    from timm.models import efficientnet

    channels = functools.partial(builder.round_channels, multiplier=width, round_limit=0.0)
    return efficientnet.EfficientNet(
        block_args=builder.decode_arch_def(arch, depth),
        num_classes=CLASSES,
        num_features=channels(1280),
        stem_size=32,
        round_chs_fn=channels,
        act_layer=act,
        norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3),
        se_layer=efficientnet.SqueezeExcite,
        pad_type="same",
    )


def resnet50(base: int):
    """timm's class lets all channels be chosen but the stem's."""
    from timm.models import resnet

    make_blocks = resnet.make_blocks

    def from_narrow_stem(block_fns, channels, block_repeats, inplanes, **kwargs):
        return make_blocks(block_fns, channels, block_repeats, base, **kwargs)

    with mock.patch.object(resnet, "make_blocks", from_narrow_stem):
        network = resnet.ResNet(
            resnet.Bottleneck,
            (3, 4, 6, 3),
            num_classes=CLASSES,
            channels=tuple(base * 2**stage for stage in range(4)),
        )
    network.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
    network.bn1 = nn.BatchNorm2d(base)
    return network


def reference(network: nn.Module) -> dict[str, torch.Tensor]:
    """The network's numbers, with statistics and scales that are not where they start.

    Computed in float64, kept in float32.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, like: torch.Tensor) -> torch.Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(uniform(0.5, 1.5, module.weight))
                module.bias.copy_(uniform(-0.5, 0.5, module.bias))
                module.running_mean.copy_(uniform(-0.3, 0.3, module.running_mean))
                module.running_var.copy_(uniform(0.5, 2.0, module.running_var))
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                normal = torch.randn(module.weight.shape, generator=generator)
                module.weight.copy_(normal * (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(uniform(-0.5, 0.5, module.bias))
    images = torch.randn((4, 3, HEIGHT, WIDTH), generator=generator)
    labels = torch.arange(4) * 3 % CLASSES
    tensors = {"input": images, "labels": labels}
    tensors |= {f"weights/{name}": value.clone() for name, value in network.state_dict().items()}
    network, images = network.double(), images.double()
    with torch.no_grad():
        tensors["out/logits_eval"] = network.eval()(images)
    logits = network.train()(images)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    tensors["out/logits_train"], tensors["out/loss_train"] = logits.detach(), loss.detach()
    parameters = list(network.named_parameters())
    for place, (name, parameter) in enumerate(parameters):
        # What batch norm takes out again, such as a bias before a 1x1 convolution, has a gradient
        # of zero and some noise.
        noise = parameter.grad.abs().max() < 1e-5
        if (place % GRADIENTS == 0 or place >= len(parameters) - 2) and not noise:
            tensors[f"out/grad/{name}"] = parameter.grad
    statistics = [name for name, _ in network.named_buffers() if "running" in name]
    for name in statistics[:4] + statistics[-4:]:
        tensors[f"out/after/{name}"] = network.state_dict()[name]
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in tensors.items()
    }


def main() -> None:
    stand_in_for_what_timm_lacks()
    torch.manual_seed(0)
    networks = {
        "resnet50": resnet50(base=4),
        "efficientnetv2_b0": efficientnet(V2_B, nn.SiLU, width=0.15, depth=0.6),
        "efficientnet_lite0": efficientnet(LITE0, nn.ReLU6, width=0.15, depth=0.6),
    }
    for name, network in networks.items():
        path = pathlib.Path(__file__).parent / f"timm_{name}.safetensors"
        save_file(reference(network), path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
