"""Rows of counts as text and JSON, and the document of all networks."""

from pnet_jax.analysis.complexity import Ratio
from pnet_jax.analysis.count import Count, Layer, Macs
from pnet_jax.analysis.tables import (
    ModelRow,
    complexity_json,
    complexity_rows,
    count_json,
    count_rows,
    count_sentence,
    model_json,
    model_row,
    models_markdown,
)

COUNTED = Count(
    layers=[
        Layer("stem", "conv 3x3/2", (112, 112, 24), 648, Macs(conv_linear=8_128_512)),
        Layer("bn", "BatchNorm", (), 48, Macs()),
        Layer("attn", "attention", (2, 49, 49), 338, Macs(attention=4000)),
    ],
    params=1034,
    macs=Macs(conv_linear=8_128_512, attention=4000),
    activations=301_056,
)
RATIO = Ratio("fc", "dynamic conv 1x1", 4, 100, 450, 1000, 1100)


def test_count():
    rows = count_rows(COUNTED)
    assert rows[0] == {
        "layer": "stem",
        "kind": "conv 3x3/2",
        "output": "112x112x24",
        "params": "648",
        "conv+linear": "8,128,512",
        "attention": "",
        "MACs": "8,128,512",
    }
    assert [(row["layer"], row["params"], row["MACs"]) for row in rows[1:]] == [
        ("bn", "48", ""),
        ("attn", "338", "4,000"),
        ("total", "1,034", "8,132,512"),
    ]
    assert count_sentence(COUNTED) == (
        "1,034 parameters; 8,132,512 MACs (8,128,512 convolution and linear, 4,000 attention); "
        "301,056 activations"
    )
    content = count_json(COUNTED)
    assert (content["params"], content["activations"]) == (1034, 301_056)
    assert content["macs"] == {
        "conv_linear": 8_128_512,
        "mixing": 0,
        "routing": 0,
        "attention": 4000,
        "total": 8_132_512,
    }
    assert content["layers"][2]["output_shape"] == [2, 49, 49]


def test_complexity():
    (row,) = complexity_rows([RATIO])
    assert (row["R_param"], row["R_FLOPs"]) == ("4.500", "1.100")
    assert complexity_json(RATIO)["params_ratio"] == 4.5
    assert complexity_json(RATIO)["macs"] == 1100


def test_a_network():
    row = model_row("parameternet_300m", image_size=224)
    assert row.params == 19_125_405
    assert (row.num_experts, row.routing) == (4, "softmax_mlp")
    assert row.papers == ["1911.11907", "2306.14525"]
    assert row.macs == Macs(282_816_640, 9_370_888, 3_459_111)
    assert model_json(row)["macs"]["total"] == 295_646_639


def test_the_document():
    rows = [
        ModelRow("a", None, None, 1000, Macs(2000), 5, ["1234.56789"]),
        ModelRow("b", 4, "softmax_mlp", 4000, Macs(2000, 30, 4), 5, []),
    ]
    text = models_markdown(rows)
    assert "\n| `a` | static | 1,000 | 2,000 | 2,000 |  |  |  | [1234.56789](" in text
    assert "\n| `b` | dynamic, 4 experts | 4,000 | 2,034 | 2,000 | 30 | 4 |  |  |\n" in text
    assert "one image of 224 pixels" in text
    assert "with the default routing, `softmax_mlp`; " in text
    assert "routing" not in models_markdown(rows[:1]).split("|---|")[-1]
    merged = ModelRow("a_reparam", None, None, 2000, Macs(9000), 5, [])
    assert "listed as they are trained" in models_markdown([merged])
    assert "listed as they are trained" not in text
