"""The progress display, in a log file and on a (pseudo-)terminal."""

import fcntl
import io
import os
import select
import struct
import termios
from collections.abc import Iterator

import pytest

from pnet_jax.report.progress import Progress


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.secs = 1000.0

    def __call__(self) -> float:
        return self.secs


def set_size(terminal: int, *, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 30, columns, 0, 0))


def read_screen(screen: int) -> str:
    shown = b""
    while select.select([screen], [], [], 0.05)[0]:
        shown += os.read(screen, 1 << 16)
    return shown.decode()


@pytest.fixture
def terminal() -> Iterator[tuple[io.TextIOWrapper, int]]:
    """A stream that is a terminal, and the descriptor from which its screen is read."""
    screen, descriptor = os.openpty()
    set_size(descriptor, columns=100)
    with open(descriptor, "w", encoding="utf-8") as stream:
        yield stream, screen
    os.close(screen)


def test_steps_of_no_images_have_no_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(
        4, images_per_step=None, description="to-onnx", stream=stream, clock=clock
    ) as progress:
        for step, stage in enumerate(("graph", "check", "layers", "file"), start=1):
            progress.update(step, doing=stage)
            clock.secs += 6
    assert stream.getvalue().splitlines() == [
        "to-onnx: step 1/4 (25%), doing=graph",
        "to-onnx: step 3/4 (75%), 00:06 left, doing=layers",
        "to-onnx: step 4/4 (100%), doing=file",
    ]


def test_plain_lines_in_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(
        400, initial_step=100, images_per_step=64, description="train", stream=stream, clock=clock
    ) as progress:
        clock.secs += 120  # the compilation, in no rate
        for step in range(101, 201):
            progress.update(step, loss=7.0 / step, top1="1.5%")
            clock.secs += 0.25
        progress.write("saved step 200")
    assert stream.getvalue().splitlines() == [
        "train: step 101/400 (25%), loss=0.06931, top1=1.5%",
        "train: step 141/400 (35%), 256 images/s, 01:04 left, loss=0.04965, top1=1.5%",
        "train: step 181/400 (45%), 256 images/s, 00:54 left, loss=0.03867, top1=1.5%",
        "saved step 200",
        "train: step 200/400 (50%), 256 images/s, 00:50 left, loss=0.035, top1=1.5%",
    ]
    assert capfd.readouterr() == ("", "")


def test_last_plain_line_is_not_repeated() -> None:
    stream = io.StringIO()
    progress = Progress(3, images_per_step=1, description="train", stream=stream, clock=Clock())
    progress.update(3)
    progress.close()
    progress.close()
    assert stream.getvalue() == "train: step 3/3 (100%)\n"


def test_nothing_is_shown_of_a_run_without_steps() -> None:
    stream = io.StringIO()
    with Progress(3, initial_step=3, images_per_step=1, description="train", stream=stream):
        pass
    assert stream.getvalue() == ""


def test_rate_is_that_of_the_last_half_minute() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(10_000, images_per_step=10, description="train", stream=stream, clock=clock)
    step = 0
    for steps, secs_per_step in ((60, 1.0), (70, 0.5)):
        for _ in range(steps):
            step += 1
            clock.secs += secs_per_step
            progress.update(step)
    assert "step 122/10,000 (1%), 20 images/s, 1:22:19 left" in stream.getvalue()
    clock.secs += 300  # one step longer than the window
    progress.update(step + 1)
    assert stream.getvalue().splitlines()[-1].startswith("train: step 131/10,000 (1%), 0 images/s")


def test_bar_on_a_terminal(terminal: tuple[io.TextIOWrapper, int]) -> None:
    stream, screen = terminal
    clock = Clock()
    with Progress(
        4, initial_step=1, images_per_step=64, description="train", stream=stream, clock=clock
    ) as progress:
        progress.update(2, loss=2.0)
        clock.secs += 0.5
        progress.update(3, loss=1.5)
        progress.write("a line of its own")
        progress.update(3, top1=0.25)
    shown = read_screen(screen)
    assert "\ra line of its own\r\n" in shown
    last = shown.rstrip().rsplit("\r", 1)[-1]
    assert last.startswith("train  75%|")
    assert last.endswith("| 3/4 steps, 128 images/s, 00:00 left, loss=1.5, top1=0.25")
    assert shown.endswith("\r\n")


def test_bar_stays_when_a_run_fails(terminal: tuple[io.TextIOWrapper, int]) -> None:
    stream, screen = terminal

    def fail() -> None:
        with Progress(4, images_per_step=1, description="train", stream=stream) as progress:
            progress.update(1, loss=2.0)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert read_screen(screen).endswith("1/4 steps, loss=2\r\n")


def test_plain_lines_on_a_terminal_without_size(terminal: tuple[io.TextIOWrapper, int]) -> None:
    stream, screen = terminal
    set_size(stream.fileno(), columns=0)
    with Progress(4, images_per_step=1, description="train", stream=stream) as progress:
        progress.update(1)
    assert read_screen(screen) == "train: step 1/4 (25%)\r\n"


def test_steps_out_of_range() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Progress(0, images_per_step=1, description="train", stream=io.StringIO())
    progress = Progress(2, images_per_step=1, description="train", stream=io.StringIO())
    with pytest.raises(ValueError, match="step 3 is after the last of 2"):
        progress.update(3)
