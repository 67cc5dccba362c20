"""Folding the batch norm into the experts changes nothing but the form."""

import pytest

torch = pytest.importorskip("torch")
from pnet_jax.convert import torch_model  # noqa: E402
from pnet_jax.convert.mobile.folded import FoldedConv, fold_norms  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("routing", ["softmax_mlp", "sigmoid_linear"])
def test_logits_stay_and_no_norm_of_a_dynamic_convolution_does(routing):
    torch.manual_seed(0)
    options = {"num_classes": 7, "width": 0.2, "routing": routing}
    network = torch_model.create_model("parameternet_300m", **options).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.3)
            module.momentum = 1.0
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        network.train()(images)  # for statistics that fit, so that signals reach the end
        before = network.eval()(images)
    fold_norms(network)
    with torch.inference_mode():
        after = network(images)
        alone = network(images[1:2])
    assert before.std(dim=0).min() > 1e-4
    assert (after - before).abs().max() < 1e-9 * before.std()
    assert (alone - before[1:2]).abs().max() < 1e-9 * before.std()
    kinds = [type(module) for module in network.modules()]
    assert (kinds.count(FoldedConv), kinds.count(torch_model.DynamicConv)) == (76, 0)
    # The norms of the static depthwise convolutions at strides.
    assert kinds.count(torch.nn.BatchNorm2d) == 4
