"""What a process shows of itself: a heartbeat in a file, where it hangs, why it ends."""

import ctypes
import faulthandler
import json
import os
import pathlib
import signal
import sys
import time


def write_heartbeat(path: pathlib.Path, process: int, host: str, doing: str) -> None:
    """Replaces the file by one that says what the process is doing now."""
    beat = {
        "process": process,
        "host": host,
        "pid": os.getpid(),
        "doing": doing,
        "unix_time_secs": time.time(),
    }
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(beat) + "\n")
        partial.replace(path)
    except OSError:
        # A full disk is for the checkpoint to complain about.
        return


def say(sentence: str) -> None:
    """Prints a sentence to standard error, in one piece: other threads may be writing there."""
    sys.stderr.write(f"pnet_jax: {sentence}\n")
    sys.stderr.flush()


def print_stacks(what: str, who: str) -> None:
    """Prints where each thread of this process is, after a sentence on why."""
    say(f"{what}; {who} is here:")
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)


def delay_aborts() -> None:
    """Lets an abort wait for six seconds, the number of its signal.

    JAX's runtime aborts at once where it loses process 0; the reader of the connection to process 0
    ends this process with a sentence in a few milliseconds.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
