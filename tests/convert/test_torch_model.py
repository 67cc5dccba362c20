"""The PyTorch twin is the Flax network: logits from the same weights, in every form."""

import jax
import numpy as np
import pytest

from pnet_jax.convert import to_torch
from pnet_jax.models import create_model, init_variables

torch = pytest.importorskip("torch")
from pnet_jax.convert import torch_model  # noqa: E402

pytestmark = pytest.mark.torch

NETWORKS = [
    ("parameternet_300m", {"routing": "softmax_mlp"}),
    ("parameternet_600m", {"routing": "sigmoid_linear"}),
    pytest.param("ghostnet_300m", {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "fields"), NETWORKS)
def test_logits_equal_in_every_form(rng, name, fields):
    model = create_model(name, num_classes=10, width=0.2, **fields)
    variables = init_variables(model, jax.random.key(0))
    # Residual branches start at zero; with other scales every layer takes part.
    variables["params"] = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            np.float32(rng.uniform(0.5, 1.5, leaf.shape)) if path[-1].key == "scale" else leaf
        ),
        variables["params"],
    )
    images = np.float32(rng.normal(size=(2, 64, 64, 3)))
    expected = np.asarray(jax.jit(model.apply)(variables, images))
    state = {key: torch.tensor(value) for key, value in to_torch(name, variables).items()}
    for form in ("conv", "matmul", "experts"):
        twin = torch_model.create_model(name, num_classes=10, width=0.2, form=form, **fields)
        twin.load_state_dict(state, strict=True)
        with torch.inference_mode():
            logits = twin.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
        assert np.abs(logits - expected).max() <= 1e-4 * expected.std()


def test_published_sizes() -> None:
    twin = torch_model.create_model("parameternet_300m", routing="sigmoid_linear")
    assert sum(p.numel() for p in twin.parameters()) == 15_737_100


def test_features_only_gives_one_map_a_resolution():
    twin = torch_model.create_model(
        "ghostnet_300m", width=0.2, features_only=True, in_chans=1
    ).eval()
    maps = twin(torch.zeros(1, 1, 64, 64))
    assert [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]


def test_pooling_of_the_head():
    images = torch.randn(2, 3, 64, 64)
    names = {"global_pool": "", "num_classes": 0}
    for pool, shape in ((names, (2, 1280, 2, 2)), ({"global_pool": "max"}, (2, 1000))):
        twin = torch_model.create_model("ghostnet_300m", width=0.2, **pool).eval()
        with torch.inference_mode():
            assert twin(images).shape == shape


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "resnet"}, "There is no model 'resnet'"),
        ({"form": "fourier"}, "There is no form 'fourier'; there are conv, matmul, experts."),
        ({"routing": "none"}, "There is no routing 'none'"),
        ({"global_pool": ""}, "There is no global_pool '' with 1000 classes"),
    ],
)
def test_refuses_in_a_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        torch_model.create_model(**({"name": "parameternet_300m"} | fields))
