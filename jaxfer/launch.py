"""The command: ``python -m jaxfer.launch --config=configs/demo.py [--workdir=DIR]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from jaxfer.config import validate
from jaxfer.errors import UserError
from jaxfer.stages import run_stages
from jaxfer.stages.report import show_tables
from jaxfer.stages.run import open_run

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: a file of configs/, optionally file.py:preset."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that holds all that the run writes; default: runs/<config's name>."
)


def _unknown_fields(arguments: Sequence[str], config: object) -> list[str]:
    """The ``--config.…`` arguments that name no field of the configuration."""
    unknown = []
    for argument in arguments:
        name = argument.lstrip("-").split("=")[0].removeprefix("no")
        if not name.startswith("config."):
            continue
        value = config
        for part in name.split(".")[1:]:
            if not isinstance(value, ConfigDict) or part not in value:
                unknown.append(name)
                break
            value = value[part]
    return unknown


def _parse(arguments: Sequence[str]) -> list[str]:
    """Parses the flags; whatever is wrong with them becomes one ``UserError``."""
    try:
        left = flags.FLAGS(arguments, known_only=False)
    except flags.Error as error:
        raise UserError("the command line", found=str(error).split("\n")[0]) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        named = _unknown_fields(arguments, flags.FLAGS["config"].value)
        raise UserError(
            f"unknown field {', '.join(named)}" if named else "the command line",
            found=str(error)
            .strip("\"'")
            .replace("\\'", "'")
            .replace("\\n", " ")
            .replace("\n", " "),
            mend="the fields and their meaning stand in jaxfer/config.py",
        ) from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            "the configuration file cannot be read",
            found=f"{type(error).__name__}: {error}",
        ) from error
    if len(left) > 1:
        raise UserError("stray arguments", found=" ".join(left[1:]), allowed="--config, --workdir")
    return left


def _config() -> ConfigDict:
    if flags.FLAGS["config"].value is None:
        raise UserError("--config is missing", mend="--config=configs/demo.py")
    try:
        config = _CONFIG.value
        config.to_dict()
    except OSError as error:
        raise UserError(
            "--config names a file that cannot be read",
            found=str(error),
            mend="--config=configs/demo.py, from the project's folder",
        ) from error
    return config


def launch(console: Console) -> None:
    """Runs the stages that the command line, already parsed, asks for."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # libraries inform of much else
    config = _config()
    validate(config)
    workdir = Path(_WORKDIR.value or Path("runs") / config.name)
    command = " ".join(["python -m jaxfer.launch", *sys.argv[1:]])
    run = open_run(config, workdir, console, command)
    run_stages(run)
    show_tables(run)


def main() -> None:
    """Entry point: exit status 0, or 2 with one message for what the user can mend."""
    try:
        app.run(lambda _: launch(Console(highlight=False)), flags_parser=_parse)
    except UserError as error:
        message = f"jaxfer: {error}"
        Console(stderr=True).print(
            message, style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        told = "jaxfer: interrupted; the same command goes on after the last finished network"
        Console(stderr=True).print(told, markup=False, highlight=False)
        sys.exit(130)


if __name__ == "__main__":
    main()
