"""Whole training and evaluation steps of full-size networks on random images."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from pnet_jax.config import Config, default_config
from pnet_jax.models import init_variables
from pnet_jax.models.dynamic import Router
from pnet_jax.parallel.mesh import make_mesh
from pnet_jax.program import Program
from pnet_jax.training.state import create_state


@dataclasses.dataclass(frozen=True)
class Contender:
    """A network, the form of its dynamic convolutions, and whether images choose their experts.

    With `routers` "off" every image gets the even mix, which shows what routers cost.
    """

    model: str
    form: str | None = None
    routers: str = "on"

    def __str__(self) -> str:
        notes = [note for note in (self.form, self.routers == "off" and "routers off") if note]
        return f"{self.model} ({', '.join(notes)})" if notes else self.model

    def building(self) -> contextlib.AbstractContextManager[Any]:
        """The context to initialise and trace the network in."""
        if self.routers == "on":
            return contextlib.nullcontext()
        return nn.intercept_methods(_even_mix)


def _even_mix(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    router = context.module
    if not isinstance(router, Router) or context.method_name != "__call__":
        return call(*args, **kwargs)
    part = args[0][0] if isinstance(args[0], tuple) else args[0]
    return jnp.full((part.shape[0], router.num_experts), 1 / router.num_experts)


@dataclasses.dataclass(frozen=True)
class Ready:
    """A compiled step and the seconds that getting there took, from a cold start."""

    step: Callable[[], Any]
    init_secs: float
    trace_secs: float
    compile_secs: float


def train_step(contender: Contender, *, batch_size: int, image_size: int) -> Ready:
    """A float32 training step; each call goes on from the state of the one before."""
    with contender.building():
        program = _program(contender, batch_size, image_size)
        start = time.perf_counter()
        variables = init_variables(program.model, jax.random.key(0))
    state = jax.jit(lambda v: create_state(v, program.optimizer))(variables)
    state = jax.block_until_ready(jax.device_put(state, program.shardings.state))
    init_secs = time.perf_counter() - start
    batch = _batch(program)
    with contender.building():
        compiled, trace_secs, compile_secs = _compile(program.train_step(), state, batch)

    def step() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    return Ready(step, init_secs, trace_secs, compile_secs)


def eval_step(contender: Contender, *, batch_size: int, image_size: int) -> Ready:
    """A float32 forward pass with running statistics, up to the logits' scores."""
    with contender.building():
        program = _program(contender, batch_size, image_size)
        start = time.perf_counter()
        variables = init_variables(program.model, jax.random.key(0))
    variables = jax.device_put(variables, program.shardings.state.ema)
    init_secs = time.perf_counter() - start
    step_number = jax.device_put(np.int32(0), program.shardings.whole)
    arguments = (variables, step_number, _batch(program))
    with contender.building():
        compiled, trace_secs, compile_secs = _compile(program.eval_step(), *arguments)
    return Ready(lambda: compiled(*arguments), init_secs, trace_secs, compile_secs)


def _program(contender: Contender, batch_size: int, image_size: int) -> Program:
    fields = default_config()
    fields.model.name, fields.model.dtype = contender.model, "float32"
    if contender.form is not None:
        fields.model.form = contender.form
    fields.data.image_size, fields.data.num_classes = image_size, 1000
    fields.global_batch_size = batch_size
    mesh = make_mesh("data=1", jax.devices()[:1])
    return Program.of(Config.of(fields), mesh, steps_per_epoch=1000.0, total_steps=100_000)


def _batch(program: Program) -> Any:
    rng = np.random.default_rng(0)
    shapes = program.batch_shape()
    batch = {
        "image": rng.integers(0, 256, shapes["image"].shape, np.uint8),
        "label": rng.integers(0, 1000, shapes["label"].shape, np.int32),
        "weight": np.ones(shapes["weight"].shape, np.float32),
    }
    return jax.device_put(batch, program.shardings.batch)


def _compile(step: Any, *arguments: Any) -> tuple[Any, float, float]:
    start = time.perf_counter()
    lowered = step.lower(*arguments)
    traced = time.perf_counter()
    return lowered.compile(), traced - start, time.perf_counter() - traced
