"""Dynamic convolutions with the batch norm behind them, in the form that LiteRT is quick with."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from pnet_jax.convert.torch_model import DynamicConv


class FoldedConv(nn.Module):
    """A dynamic convolution whose experts carry the scale of the batch norm, with its shift.

    Exact, since mixing is linear. A 1x1 convolution is a matrix product with channels last, as
    LiteRT has its maps, and its experts are `[K, Ci Co]`: neither is transposed on the way.
    """

    def __init__(self, conv: DynamicConv, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.routing, self.sigmoid = conv.routing, conv.routing_kind == "sigmoid_linear"
        self.shape, self.stride, self.padding = conv.shape, conv.stride, conv.padding
        self.groups = conv.groups
        self.as_product = conv.shape[2] == conv.groups == conv.stride == 1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        experts = conv.cond_conv.weight.view(conv.count, *conv.shape) * scale.view(-1, 1, 1, 1)
        if self.as_product:
            experts = experts.transpose(1, 2)
        self.experts = nn.Parameter(experts.reshape(conv.count, -1).detach())
        self.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach())

    def forward(self, x: Tensor) -> Tensor:
        # The mean over the last axes would have the converter transpose the map once more.
        logits = self.routing(x.permute(0, 2, 3, 1).mean((1, 2)))
        weight = (logits.sigmoid() if self.sigmoid else logits.softmax(-1)) @ self.experts
        samples, channels, height, width = x.shape
        features, inputs, kernel, _ = self.shape
        if self.as_product:
            pixels = x.permute(0, 2, 3, 1).reshape(samples, -1, channels)
            y = pixels @ weight.view(samples, channels, features) + self.bias
            return y.view(samples, height, width, features).permute(0, 3, 1, 2)
        y = functional.conv2d(
            x.reshape(1, samples * channels, height, width),
            weight.view(samples * features, inputs, kernel, kernel),
            self.bias.repeat(samples) if samples > 1 else self.bias,
            self.stride,
            self.padding,
            1,
            samples * self.groups,
        )
        return y.view(samples, features, *y.shape[2:])


def fold_norms(network: nn.Module) -> nn.Module:
    """Puts a `FoldedConv` in the place of each dynamic convolution and its norm; returns it."""
    for (name, conv), (norm_name, norm) in itertools.pairwise([*network.named_children()]):
        if isinstance(conv, DynamicConv) and isinstance(norm, nn.BatchNorm2d):
            setattr(network, name, FoldedConv(conv, norm))
            setattr(network, norm_name, nn.Identity())
    for child in network.children():
        fold_norms(child)
    return network
