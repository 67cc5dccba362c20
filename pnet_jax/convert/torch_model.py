"""ParameterNet and GhostNet in PyTorch: one file that stands alone and may be copied away.

    model = create_model("parameternet_300m", routing="sigmoid_linear")
    model.load_state_dict(safetensors.torch.load_file("exported.safetensors"))

The names of the weights are the published ones (arXiv 2306.14525, 1911.11907). `form` says how
dynamic convolutions are computed; all are the same function:

- `conv`: the published way, the batch folded into the groups of one convolution;
- `matmul`: a batched matrix product for 1x1, `conv` for the others;
- `experts`: one convolution with K times the outputs, which are then mixed.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# (kernel, expansion, features, squeeze-excite ratio, stride), in channels at width 1.
_STAGES_300M = (
    ((3, 16, 16, 0, 1),),
    ((3, 48, 24, 0, 2),),
    ((3, 72, 24, 0, 1),),
    ((5, 72, 40, 0.25, 2),),
    ((5, 120, 40, 0.25, 1),),
    ((3, 240, 80, 0, 2),),
    (
        (3, 200, 80, 0, 1),
        (3, 184, 80, 0, 1),
        (3, 184, 80, 0, 1),
        (3, 480, 112, 0.25, 1),
        (3, 672, 112, 0.25, 1),
    ),
    ((5, 672, 160, 0.25, 2),),
    ((5, 960, 160, 0, 1), (5, 960, 160, 0.25, 1), (5, 960, 160, 0, 1), (5, 960, 160, 0.25, 1)),
)
_STAGES_600M = (
    ((3, 16, 16, 0, 1),),
    ((3, 48, 24, 0, 2),),
    ((3, 72, 24, 0, 1),),
    ((5, 72, 40, 0.25, 2),),
    ((3, 120, 40, 0.25, 1),) * 2,
    ((3, 240, 80, 0, 2),),
    ((3, 200, 80, 0, 1),) * 3 + ((3, 480, 112, 0.25, 1),) + ((3, 672, 112, 0.25, 1),) * 2,
    ((5, 672, 160, 0.25, 2),),
    ((3, 960, 160, 0.25, 1),) * 5,
)
_MODELS = {
    "ghostnet_300m": (_STAGES_300M, 1.45, nn.ReLU, None),
    "ghostnet_600m": (_STAGES_600M, 1.9, nn.Hardswish, None),
    "parameternet_300m": (_STAGES_300M, 1.45, nn.ReLU, 4),
    "parameternet_600m": (_STAGES_600M, 1.9, nn.Hardswish, 4),
}


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    width: float | None = None,
    num_experts: int | None = None,
    routing: str = "softmax_mlp",
    routing_ratio: float = 0.25,
    form: str = "matmul",
    in_chans: int = 3,
    drop_rate: float = 0.2,
    global_pool: str = "avg",
    features_only: bool = False,
) -> nn.Module:
    """The network of that name.

    `features_only` returns the map before each stride and the last. `global_pool` is "avg", "max",
    or "" for no pooling, which needs `num_classes` 0 and returns a map.

    Raises:
      ValueError: for an unknown name, routing, form or pooling.
    """
    if name not in _MODELS:
        raise ValueError(f"There is no model {name!r}; there are {', '.join(_MODELS)}.")
    stages, default_width, act, experts = _MODELS[name]
    if form not in ("conv", "matmul", "experts"):
        raise ValueError(f"There is no form {form!r}; there are conv, matmul, experts.")
    if routing not in ("softmax_mlp", "softmax_linear", "sigmoid_linear"):
        raise ValueError(
            f"There is no routing {routing!r}; there are softmax_mlp, softmax_linear, "
            f"sigmoid_linear."
        )
    if global_pool not in ("avg", "max") and (global_pool or num_classes):
        raise ValueError(
            f"There is no global_pool {global_pool!r} with {num_classes} classes; there are avg, "
            f"max, and with num_classes 0 an empty one."
        )
    options = (num_experts or experts, routing, routing_ratio, form) if experts else None
    return GhostNet(
        stages,
        width or default_width,
        act,
        options,
        num_classes,
        in_chans,
        drop_rate,
        global_pool,
        features_only,
    )


def register_with(timm: Any) -> None:
    """Makes the module timm know these networks.

    Then `timm.create_model("local-dir:FOLDER", pretrained=True)` opens a folder of to-hub.
    """
    for name in _MODELS:

        def entry(
            pretrained: bool = False,
            *,
            _name: str = name,
            features_only: bool = False,
            **options: Any,
        ) -> nn.Module:
            network = functools.partial(create_model, _name, features_only=features_only)
            return timm.models.build_model_with_cfg(network, _name, pretrained, **options)

        entry.__name__ = entry.__qualname__ = name
        timm.models.register_model(entry)


def _make_divisible(value: float, divisor: int = 4) -> int:
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class _Experts(nn.Module):
    """Holds `cond_conv.weight` `[K, Co Ci/g kh kw]`, as published."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, size))
        nn.init.normal_(self.weight, std=0.05)


class DynamicConv(nn.Module):
    """A convolution whose kernel is, for each sample, the routed mix of K kernels."""

    def __init__(
        self, inputs: int, features: int, kernel: int, stride: int, groups: int, options: tuple
    ) -> None:
        super().__init__()
        self.count, self.routing_kind, ratio, self.form = options
        self.shape = (features, inputs // groups, kernel, kernel)
        self.stride, self.groups, self.padding = stride, groups, (kernel - 1) // 2
        if self.routing_kind == "softmax_mlp":
            hidden = max(1, round(inputs * ratio))
            layers = nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, self.count)
            self.routing: nn.Module = nn.Sequential(*layers)
        else:
            self.routing = nn.Linear(inputs, self.count)
        self.cond_conv = _Experts(self.count, features * inputs // groups * kernel * kernel)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.routing(x.mean((2, 3)))
        sigmoid = self.routing_kind == "sigmoid_linear"
        pi = logits.sigmoid() if sigmoid else logits.softmax(-1)
        samples, channels, height, width = x.shape
        features, inputs, kernel, _ = self.shape
        if self.form == "experts":
            # [K, G, O/G, ...] -> [G, K, O/G, ...]: all experts' outputs of one group together.
            w = self.cond_conv.weight.view(self.count, self.groups, -1, inputs, kernel, kernel)
            w = w.transpose(0, 1).reshape(-1, inputs, kernel, kernel)
            y = functional.conv2d(x, w, None, self.stride, self.padding, 1, self.groups)
            y = y.view(samples, self.groups, self.count, -1, *y.shape[2:])
            y = torch.einsum("nk,ngkohw->ngohw", pi, y)
            return y.reshape(samples, features, *y.shape[3:])
        weight = pi @ self.cond_conv.weight
        if self.form == "matmul" and kernel == self.groups == self.stride == 1:
            y = weight.view(samples, features, inputs) @ x.flatten(2)
            return y.view(samples, features, height, width)
        x = x.reshape(1, samples * channels, height, width)
        weight = weight.view(samples * features, inputs, kernel, kernel)
        groups = samples * self.groups
        y = functional.conv2d(x, weight, None, self.stride, self.padding, 1, groups)
        return y.view(samples, features, *y.shape[2:])


def _conv(
    inputs: int, features: int, kernel: int, stride: int, groups: int, options: tuple | None
) -> nn.Module:
    if options is not None:
        return DynamicConv(inputs, features, kernel, stride, groups, options)
    padding = (kernel - 1) // 2
    return nn.Conv2d(inputs, features, kernel, stride, padding, groups=groups, bias=False)


class _GhostModule(nn.Module):
    def __init__(
        self, inputs: int, features: int, act: type[nn.Module], options: tuple | None
    ) -> None:
        super().__init__()
        self.features, half = features, -(-features // 2)
        conv = _conv(inputs, half, 1, 1, 1, options)
        self.primary_conv = nn.Sequential(conv, nn.BatchNorm2d(half), act())
        conv = _conv(half, half, 3, 1, half, options)
        self.cheap_operation = nn.Sequential(conv, nn.BatchNorm2d(half), act())

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary_conv(x)
        return torch.cat([x, self.cheap_operation(x)], dim=1)[:, : self.features]


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv_reduce, self.act = nn.Conv2d(channels, squeezed, 1), act()
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv_expand(self.act(self.conv_reduce(x.mean((2, 3), keepdim=True))))
        return x * functional.hardsigmoid(gate)


class _Bottleneck(nn.Module):
    def __init__(
        self,
        inputs: int,
        expansion: int,
        features: int,
        kernel: int,
        stride: int,
        se_ratio: float,
        act: type[nn.Module],
        options: tuple | None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.ghost1 = _GhostModule(inputs, expansion, act, options)
        if stride > 1:
            self.conv_dw = _conv(expansion, expansion, kernel, stride, expansion, None)
            self.bn_dw = nn.BatchNorm2d(expansion)
        self.se: nn.Module = nn.Identity()
        if se_ratio > 0:
            self.se = _SqueezeExcite(expansion, _make_divisible(expansion * se_ratio), act)
        self.ghost2 = _GhostModule(expansion, features, nn.Identity, options)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != features:
            self.shortcut = nn.Sequential(
                _conv(inputs, inputs, kernel, stride, inputs, options),
                nn.BatchNorm2d(inputs),
                _conv(inputs, features, 1, 1, 1, options),
                nn.BatchNorm2d(features),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        if self.stride > 1:
            y = self.bn_dw(self.conv_dw(y))
        return self.ghost2(self.se(y)) + self.shortcut(x)


class _ConvBnAct(nn.Module):
    def __init__(
        self, inputs: int, features: int, act: type[nn.Module], options: tuple | None
    ) -> None:
        super().__init__()
        self.conv = _conv(inputs, features, 1, 1, 1, options)
        self.bn1, self.act = nn.BatchNorm2d(features), act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn1(self.conv(x)))


class GhostNet(nn.Module):
    """Stem, bottlenecks, a 1x1 expansion; pool, 1280 features, classifier."""

    def __init__(
        self,
        stages: tuple,
        width: float,
        act: type[nn.Module],
        options: tuple | None,
        num_classes: int,
        in_chans: int,
        drop_rate: float,
        global_pool: str,
        features_only: bool,
    ) -> None:
        super().__init__()
        self.features_only, self.drop_rate = features_only, drop_rate
        self.num_classes, self.global_pool = num_classes, global_pool
        channels = _make_divisible(16 * width)
        self.conv_stem = _conv(in_chans, channels, 3, 2, 1, options)
        self.bn1, self.act1 = nn.BatchNorm2d(channels), act()
        blocks: list[nn.Module] = []
        for rows in stages:
            stage: list[nn.Module] = []
            for kernel, expansion, features, se_ratio, stride in rows:
                expansion, features = (_make_divisible(c * width) for c in (expansion, features))
                shape = channels, expansion, features, kernel, stride, se_ratio
                stage.append(_Bottleneck(*shape, act, options))
                channels = features
            blocks.append(nn.Sequential(*stage))
        last = _make_divisible(stages[-1][-1][1] * width)
        blocks.append(nn.Sequential(_ConvBnAct(channels, last, act, options)))
        self.blocks = nn.Sequential(*blocks)
        self.num_features = 1280
        self.conv_head, self.act2 = nn.Conv2d(last, 1280, 1), act()
        self.classifier = nn.Linear(1280, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to the last feature map."""
        return self.blocks(self.act1(self.bn1(self.conv_stem(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map to logits, or to the 1280 features before them."""
        if self.global_pool == "avg":
            x = x.mean((2, 3), keepdim=True)
        elif self.global_pool == "max":
            x = x.amax((2, 3), keepdim=True)
        x = self.act2(self.conv_head(x))
        if not self.global_pool:
            return x
        x = x.flatten(1)
        x = functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits, or with `features_only` the last map of each resolution."""
        if not self.features_only:
            return self.forward_head(self.forward_features(x))
        maps = [self.act1(self.bn1(self.conv_stem(x)))]
        for stage in self.blocks:
            y = stage(maps[-1])
            if y.shape[-1] == maps[-1].shape[-1]:
                maps[-1] = y
            else:
                maps.append(y)
        return maps
