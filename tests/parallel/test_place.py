"""Which process of how many this is, by the variables of the environment."""

import pytest

from pnet_jax.errors import UserError
from pnet_jax.parallel.place import Place, place_from_environment


def variables(address: str = "host:1234", count: str = "4", index: str = "2") -> dict[str, str]:
    return {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": count,
        "JAX_PROCESS_ID": index,
    }


def test_one_of_many():
    assert place_from_environment(variables(), 1.0) == Place("host:1234", 2, 4)
    assert place_from_environment(variables("[::1]:80"), 1.0) == Place("[::1]:80", 2, 4)


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_PLATFORMS": "cpu"},
        variables(count="1", index="0"),
        variables("", "", "") | {"JAX_PLATFORMS": "cpu"},
        {"SLURM_JOB_ID": "7", "JAX_PLATFORMS": "cpu"},
    ],
    ids=["nothing said", "one said", "empty", "a batch job without srun"],
)
def test_the_only_one(environment: dict[str, str]):
    assert place_from_environment(environment, 1.0) is None


def test_slurm(monkeypatch: pytest.MonkeyPatch):
    slurm = {
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_NODELIST": "node[007-010]",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "0",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    place = place_from_environment(slurm, 1.0)
    assert place is not None
    assert (place.index, place.count) == (3, 4)
    assert place.coordinator.startswith("node007:")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"JAX_PROCESS_ID": "1"},
            "JAX_PROCESS_ID is set, but JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES not; set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID in every process, or none "
            "of them.",
        ),
        (
            variables(index="4"),
            "JAX_NUM_PROCESSES = 4 and JAX_PROCESS_ID = 4 do not fit each other: processes are "
            "numbered from 0 to one less than their number.",
        ),
        (
            variables(count="many"),
            "JAX_NUM_PROCESSES = many and JAX_PROCESS_ID = 2 do not fit each other: processes are "
            "numbered from 0 to one less than their number.",
        ),
        (
            variables("host"),
            "JAX_COORDINATOR_ADDRESS = 'host' cannot be read; write it as HOST:PORT, of the "
            "machine of process 0.",
        ),
        (
            variables("host:70000"),
            "JAX_COORDINATOR_ADDRESS = 'host:70000' cannot be read; write it as HOST:PORT, of the "
            "machine of process 0.",
        ),
    ],
)
def test_what_does_not_fit(environment: dict[str, str], sentence: str):
    with pytest.raises(UserError) as caught:
        place_from_environment(environment, 1.0)
    assert str(caught.value) == sentence
