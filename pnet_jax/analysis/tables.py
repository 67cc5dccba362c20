"""Tables of counts: each as rows of numbers for JSON, and as rows of text to print."""

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flax import linen as nn

from pnet_jax.analysis.complexity import Ratio
from pnet_jax.analysis.count import Count, Layer, Macs, count
from pnet_jax.models import create_model

_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
_PARAMETERNET = "2306.14525"
# Where the source file of a network begins with another network's paper.
_PAPERS = {"efficientnet_lite0": "1905.11946"}

_HEADER = """\
# Networks

Every name that `create_model` knows, with 1,000 classes and on one image of {image_size} pixels a
side. Parameters and multiply-accumulates (MACs, the FLOPs of the papers) are traced from the
networks themselves; biases, norms and activation functions are not counted. This file is what

    python -m pnet_jax.analyze models --out docs/models.md

writes. `python -m pnet_jax.analyze count --model NAME` prints a network layer by layer, `python -m
pnet_jax.analyze complexity --model NAME` what its dynamic layers cost against static ones.

"""


class ModelRow(NamedTuple):
    """A network of this project in its default form."""

    name: str
    num_experts: int | None
    routing: str | None
    params: int
    macs: Macs
    activations: int
    papers: list[str]  # arXiv numbers


def model_row(name: str, image_size: int = 224) -> ModelRow:
    """What a network is and costs; the papers are those that its source names."""
    model = create_model(name)
    counted = count(model, image_size)
    num_experts = getattr(model, "num_experts", None)
    return ModelRow(
        name=name,
        num_experts=num_experts,
        routing=None if num_experts is None else getattr(model, "routing", None),
        params=counted.params,
        macs=counted.macs,
        activations=counted.activations,
        papers=_papers(name, model, dynamic=num_experts is not None),
    )


def _papers(name: str, model: nn.Module, *, dynamic: bool) -> list[str]:
    """The first paper of the network's docstring, and that of its dynamic form."""
    module = sys.modules[type(model).__module__]
    text = f"{inspect.getdoc(module) or ''}\n{inspect.getdoc(type(model)) or ''}"
    named = [number for number in _ARXIV.findall(text) if number != _PARAMETERNET]
    first = [_PAPERS[name]] if name in _PAPERS else named[:1]
    return first + ([_PARAMETERNET] if dynamic else [])


def models_markdown(rows: Sequence[ModelRow], image_size: int = 224) -> str:
    """The whole of docs/models.md."""
    lines = [
        "| name | form | parameters | MACs | conv, linear | mixing | routing | attention | paper |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        form = "static" if row.num_experts is None else f"dynamic, {row.num_experts} experts"
        papers = ", ".join(f"[{n}](https://arxiv.org/abs/{n})" for n in row.papers)
        numbers = [row.params, row.macs.total, *row.macs]
        cells = [f"`{row.name}`", form, *(f"{n:,}" if n else "" for n in numbers), papers]
        lines.append("| " + " | ".join(cells) + " |")
    notes = ""
    routings = sorted({row.routing for row in rows if row.routing is not None})
    if routings:
        notes += (
            "\nDynamic networks are listed with the default routing, "
            f"{' or '.join(f'`{routing}`' for routing in routings)}; the counts of the published "
            "code are those of\n`--routing sigmoid_linear`.\n"
        )
    if any(row.name.endswith("_reparam") for row in rows):
        notes += (
            "\nRe-parameterised networks (`_reparam`) are listed as they are trained; merged, they "
            "cost what the network\nof the same name without this ending does.\n"
        )
    return _HEADER.format(image_size=image_size) + "\n".join(lines) + "\n" + notes


def model_json(row: ModelRow) -> dict[str, Any]:
    """The row in JSON's types."""
    return row._asdict() | {"macs": macs_json(row.macs)}


def macs_json(macs: Macs) -> dict[str, int]:
    """MACs by purpose, and their total."""
    return macs._asdict() | {"total": macs.total}


def count_json(counted: Count) -> dict[str, Any]:
    """Totals and layers in JSON's types."""
    return {
        "params": counted.params,
        "macs": macs_json(counted.macs),
        "activations": counted.activations,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "output_shape": list(layer.output_shape),
                "params": layer.params,
                "macs": macs_json(layer.macs),
            }
            for layer in counted.layers
        ],
    }


def count_rows(counted: Count) -> list[dict[str, str]]:
    """A row for each layer, for `report.tables.format_table`, and one for their sum."""
    purposes = [
        purpose
        for purpose in Macs._fields
        if getattr(counted.macs, purpose) and purpose != "conv_linear"
    ]
    total = Layer("total", "", (), counted.params, counted.macs)
    return [_layer_row(layer, purposes) for layer in [*counted.layers, total]]


def _layer_row(layer: Layer, purposes: Sequence[str]) -> dict[str, str]:
    cells = {
        "layer": layer.name,
        "kind": layer.kind,
        "output": "x".join(str(length) for length in layer.output_shape),
        "params": f"{layer.params:,}",
        "conv+linear": f"{layer.macs.conv_linear:,}",
        **{purpose: f"{getattr(layer.macs, purpose):,}" for purpose in purposes},
        "MACs": f"{layer.macs.total:,}",
    }
    return {name: "" if cell == "0" else cell for name, cell in cells.items()}


def count_sentence(counted: Count) -> str:
    """The totals in one line."""
    names = {"conv_linear": "convolution and linear", "mixing": "mixing of experts"}
    parts = [
        f"{macs:,} {names.get(purpose, purpose)}"
        for purpose, macs in counted.macs._asdict().items()
        if macs
    ]
    return (
        f"{counted.params:,} parameters; {counted.macs.total:,} MACs ({', '.join(parts)}); "
        f"{counted.activations:,} activations"
    )


def complexity_rows(ratios: Sequence[Ratio]) -> list[dict[str, str]]:
    """A row for each ratio, for `report.tables.format_table`."""
    return [
        {
            "layer": ratio.name,
            "kind": ratio.kind,
            "params static": f"{ratio.static_params:,}",
            "dynamic": f"{ratio.params:,}",
            "R_param": f"{ratio.params_ratio:.3f}",
            "MACs static": f"{ratio.static_macs:,}",
            "dynamic ": f"{ratio.macs:,}",
            "R_FLOPs": f"{ratio.macs_ratio:.3f}",
        }
        for ratio in ratios
    ]


def complexity_json(ratio: Ratio) -> Mapping[str, Any]:
    """The ratio in JSON's types."""
    return ratio._asdict() | {"params_ratio": ratio.params_ratio, "macs_ratio": ratio.macs_ratio}
