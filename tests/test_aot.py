"""The train step compiled for chips that are not here, at a size that takes seconds."""

import json

import jax
import numpy as np
import pytest

from pnet_jax import aot
from pnet_jax.config import Config
from pnet_jax.parallel import ahead_of_time
from pnet_jax.parallel.ahead_of_time import compile_step, tpu_devices
from pnet_jax.parallel.mesh import make_mesh
from pnet_jax.program import Program

TINY = """
import ml_collections
from pnet_jax import recipes

def get_config(size="full"):
    config = recipes.pretrain_22k("parameternet_300m")
    config.model.width = 0.1
    config.data.image_size = 32
    config.data.num_classes = 21
    config.model.bn_groups = 4
    config.global_batch_size = 256
    return config
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return f"--config={path}"


@pytest.mark.aot
@pytest.mark.slow
def test_reports_a_step_of_one_chip(config, capsys):
    """With batch norm by device, the only communication is the sum of gradients and metrics."""
    assert aot.main([config, "--topology=v5e:2x2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["chips"] == 4
    assert result["batch_per_chip"] == 64
    for field in ("flops", "bytes_accessed", "temp_bytes", "argument_bytes", "compile_secs"):
        assert result[field] > 0
    assert {each["kind"] for each in result["collectives"]} == {"all-reduce"}
    # The gradients once, most of them in bfloat16; a ring of four sends and receives 3 times that.
    (reduced,) = result["collectives"]
    assert 0.5 <= reduced["bytes"] / result["parameter_bytes"] < 1.1
    assert reduced["ici_bytes"] == 3 * reduced["bytes"]
    assert reduced["dcn_bytes"] == 0
    # Adam's two moments and the averages, and the batch norms' statistics.
    assert 3 < result["optimizer_bytes"] / result["parameter_bytes"] < 3.2
    state = result["parameter_bytes"] + result["optimizer_bytes"]
    # On the chip small arrays are filled up to whole tiles, and all of this network's are small.
    assert state < result["argument_bytes"] < 4 * state
    assert result["step_secs"] >= result["bytes_accessed"] / 819e9
    assert result["images_per_sec"] == pytest.approx(256 / result["step_secs"])
    assert result["chip_hours"] == pytest.approx(4 * result["hours"])


def test_finds_the_largest_batch(monkeypatch, capsys):
    """Around the compiler, which takes many minutes for such batches: 10 bytes an image."""

    def of(args, topology):
        size = args.global_batch_size // 4
        if 10 * size > 900:
            raise ahead_of_time.DoesNotFit("too many")
        used = {"hbm_bytes": 1000, "argument_bytes": 100, "temp_bytes": 10 * size}
        return used | {"batch_per_chip": size}

    monkeypatch.setattr(aot, "_of", of)
    monkeypatch.setattr(ahead_of_time, "tpu_devices", lambda topology, slices: [None] * 4)
    for start in (16, 48, 4096):
        args = aot._parser().parse_args(
            ["--config=x", "--search-batch", f"--batch-per-chip={start}"]
        )
        assert aot._searched(args, "v5e:2x2")["batch_per_chip"] == 80
    said = capsys.readouterr().err
    assert "4096 images a chip: too many" in said
    assert "80 images a chip: fit" in said


@pytest.mark.aot
@pytest.mark.slow
def test_evaluation_communicates_its_sums_alone(config):
    """The kernels work on each chip's samples, in evaluation as in training."""
    fields = aot.config_of(config.removeprefix("--config="))
    mesh = make_mesh("data=-1", tpu_devices("v5e:2x2"))
    program = Program.of(Config.of(fields), mesh, steps_per_epoch=10.0, total_steps=100)
    step = jax.ShapeDtypeStruct((), np.int32, sharding=program.shardings.whole)
    variables = program.state_shape.ema
    compiled = compile_step(
        program.eval_step(),
        variables,
        step,
        program.batch_shape(),
        devices=list(mesh.devices.flat),
    )
    assert [each.kind for each in compiled.collectives] == ["all-reduce"]
    assert compiled.collectives[0].bytes < 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--topology=v5e"], "--topology=v5e cannot be read; write it as v5e:2x2 or v4:2x2x1."),
        (["--config=nowhere.py"], "There is no configuration file 'nowhere.py'; see configs/."),
        (["--set", "augment.nothing=1"], "--set augment.nothing=1 cannot be read; write FIELD="),
        (["--set", "augment.random_erasing=2"], "config.augment.random_erasing is 2"),
        (["--model=resnet"], "There is no model 'resnet'"),
    ],
)
def test_refuses_in_a_sentence(config, capsys, arguments, sentence):
    if arguments[-1] in ("--model=resnet", "augment.random_erasing=2"):
        pytest.importorskip("libtpu")
    assert aot.main([config, *arguments]) == 2
    assert sentence in capsys.readouterr().err
