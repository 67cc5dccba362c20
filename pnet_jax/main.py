"""The command line of training.

python -m pnet_jax.main --config=configs/pnet300m_22k.py --workdir=DIR [--config.FIELD=VALUE ...]
"""

import os
import pathlib
import sys
import traceback
from collections.abc import Sequence

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from pnet_jax.config import Config, default_config
from pnet_jax.errors import Preempted, TrainingError, UserError
from pnet_jax.fields import flatten, suggest

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "A file with get_config(); append ':demo' for the same recipe on the demo set. Fields are "
    "overridden by --config.FIELD=VALUE; pnet_jax/config.py explains each.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints and metrics go; the same directory again continues the run."
)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with a plain sentence for whatever it and the configuration file raise."""
    fields, config_file = list(flatten(default_config().to_dict())), ""
    try:
        for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
            name, equals, value = argument.lstrip("-").partition("=")
            field = name.removeprefix("config.")
            if field != name and field not in fields:
                raise UserError(f"There is no field config.{field}{suggest(field, fields)}")
            if name == "config":
                config_file = (value if equals else following).partition(":")[0]
                if not pathlib.Path(config_file).is_file():
                    raise UserError(
                        f"There is no configuration file {config_file!r}; see configs/."
                    )
        # absl's own default would be to log at INFO.
        return flags.FLAGS([argv[0], f"--verbosity={logging.WARNING}", *argv[1:]])
    except UserError as error:
        sentence = str(error)
    except Exception as error:
        sentence = _in_one_sentence(error, config_file)
    sys.exit(_told(sentence))


def _in_one_sentence(error: BaseException, config_file: str) -> str:
    """The first error in the configuration file, and where it is; else what absl says."""
    sentence, cause = f"The command line cannot be read: {error}", error.__context__
    if not isinstance(error, flags.Error):
        sentence, cause = f"The configuration file {config_file} cannot be read: {error}", error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        if lines := [frame.lineno for frame in frames if frame.filename == config_file]:
            where = f"{config_file} fails in line {lines[-1]}"
            sentence = f"The configuration file {where}: {type(cause).__name__}: {cause}"
        cause = cause.__context__
    return sentence


def _main(argv: Sequence[str]) -> int:
    if len(argv) > 1:
        return _told(f"Unexpected argument {argv[1]!r}; fields are set by --config.FIELD=VALUE.")
    if _CONFIG.value is None or _WORKDIR.value is None:
        return _told("Pass both --config=FILE and --workdir=DIR; --help explains them.")
    if not isinstance(_CONFIG.value, ml_collections.ConfigDict):
        found = type(_CONFIG.value).__name__
        return _told(f"get_config() returned an object of type {found}, not a ConfigDict.")
    # Before the first import of JAX's backends: their start-up notes are not for the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pnet_jax.parallel.distributed import PREEMPTED_EXIT_CODE, join
    from pnet_jax.train import train
    from pnet_jax.workdir import check_is_path

    try:
        config = Config.of(_CONFIG.value)
        check_is_path("--workdir", _WORKDIR.value)
        check_is_path("--config.data.data_dir", config.data.data_dir)
        with join(config) as processes:
            train(config, pathlib.Path(_WORKDIR.value), processes)
    except UserError as error:
        return _told(str(error))
    except TrainingError as error:
        return _told(str(error), code=1)
    except Preempted as error:
        return _told(str(error), code=PREEMPTED_EXIT_CODE)
    except KeyboardInterrupt:
        return _told("Interrupted; the same command continues after the last checkpoint.", code=130)
    return 0


def _told(sentence: str, code: int = 2) -> int:
    print(f"pnet_jax: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    app.run(_main, flags_parser=_parse_flags)
