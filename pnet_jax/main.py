"""The command line of training.

python -m pnet_jax.main --config=configs/pnet300m_22k.py --workdir=DIR [--config.FIELD=VALUE ...]
"""

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from pnet_jax.config import Config, default_config, flatten, suggest
from pnet_jax.errors import TrainingError, UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "A file with get_config(); append ':demo' for the same recipe on the demo set. Fields are "
    "overridden by "
    "--config.FIELD=VALUE; pnet_jax/config.py explains each.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints and metrics go; the same directory again continues the run."
)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with a plain sentence for what ml_collections reports by an exception."""
    fields = list(flatten(default_config().to_dict()))
    for argument in argv[1:]:
        name, _, _ = argument.lstrip("-").partition("=")
        field = name.removeprefix("config.")
        if field != name and field not in fields:
            sys.exit(_told(f"There is no field config.{field}{suggest(field, fields)}"))
    try:
        return app.parse_flags_with_usage(list(argv))
    except UserError as error:
        sys.exit(_told(str(error)))
    except (FileNotFoundError, TypeError, ValueError, AttributeError) as error:
        sys.exit(_told(f"The configuration cannot be read: {error}"))


def _main(argv: Sequence[str]) -> int:
    if len(argv) > 1:
        return _told(f"Unexpected argument {argv[1]!r}; fields are set by --config.FIELD=VALUE.")
    if _CONFIG.value is None or _WORKDIR.value is None:
        return _told("Pass both --config=FILE and --workdir=DIR; --help explains them.")
    # Before the first import of JAX's backends: their start-up notes are not for the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pnet_jax.train import train

    try:
        train(Config.of(_CONFIG.value), pathlib.Path(_WORKDIR.value))
    except UserError as error:
        return _told(str(error))
    except TrainingError as error:
        return _told(str(error), code=1)
    return 0


def _told(sentence: str, code: int = 2) -> int:
    print(f"pnet_jax: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    app.run(_main, flags_parser=_parse_flags)
