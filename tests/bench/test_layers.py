"""The layers that are timed are the network's, and each form that can is timed."""

from pnet_jax.bench.layers import Layer, layers_of, time_layer


def test_all_dynamic_convolutions_of_the_300m():
    """As many as published (76), the stem first."""
    layers = layers_of("parameternet_300m", 224)
    assert sum(layer.count for layer in layers) == 76
    assert str(layers[0]) == "3x3 s2, 224 px, 3->24"
    assert len(set(map(str, layers))) == len(layers)


def test_times_every_form_that_can():
    layer = Layer(1, 1, 1, side=4, channels=3, features=5, num_experts=2)
    results = list(time_layer(layer, batch_size=2, rounds=2))
    assert [form for form, _, _ in results] == ["auto", "grouped", "experts", "matmul", "patches"]
    assert all(forward > 0 and both > 0 for _, forward, both in results)
