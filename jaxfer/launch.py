"""The command: ``python -m jaxfer.launch --config=configs/demo.py [--workdir=DIR]``."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from functools import partial
from logging import WARNING, getLogger
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from jaxfer import hosts
from jaxfer.config import validate
from jaxfer.errors import Interrupted, UserError
from jaxfer.memory import keep_freed_memory
from jaxfer.stages import run_stages, shared
from jaxfer.stages.interrupt import Interruption
from jaxfer.stages.report import show_tables
from jaxfer.stages.run import devices, open_run
from jaxfer.stages.training import slabs_fit
from jaxfer.stages.trouble import LostProcess, in_words

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: a file of configs/, optionally file.py:preset."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that holds all that the run writes; default: runs/<config's name>."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "With several processes: host:port of the first; 'auto' on SLURM, a TPU pod or under MPI.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many there are, unless 'auto'.")
_PROCESS = flags.DEFINE_integer("process", None, "This one's number, from 0, unless 'auto'.")
_PATIENCE = flags.DEFINE_float("patience", 300.0, "Seconds to wait for the other processes.")


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
            mend="the fields and their meaning stand in jaxfer/config/defaults.py",
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


def _remember_compilations(folder: str) -> None:
    """Compiled steps are kept on the disk: a second launch starts at once."""
    if folder == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", folder or str(caches / "jaxfer"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def launch(console: Console) -> None:
    """Runs the stages that the command line, already parsed, asks for."""
    if not flags.FLAGS["verbosity"].present:
        # Libraries inform of much, and print the tracebacks of errors that they also raise.
        logging.set_verbosity(logging.FATAL)
        # But for jax's word on a GPU or TPU that it cannot use, with how to find out why.
        getLogger("jax._src.xla_bridge").setLevel(WARNING)
    config = _config()
    validate(config)
    _remember_compilations(config.run.compilation_cache)
    if _COORDINATOR.value is not None:
        hosts.join(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _PATIENCE.value, _refuse)
    elif _PROCESSES.value is not None or _PROCESS.value is not None:
        raise UserError(
            "--processes and --process without --coordinator", mend="--coordinator=HOST:PORT"
        )
    else:
        shares = [s.batch_size // s.accumulate for s in (config.pretrain, config.finetune)]
        hosts.split_processor(config.run.cpu_devices, shares, partial(slabs_fit, config))
    workdir = Path(_WORKDIR.value or Path("runs") / config.name)
    command = " ".join(["python -m jaxfer.launch", *sys.argv[1:]])
    interruption = Interruption(config.run.max_minutes)
    with (
        interruption.listening(),
        open_run(config, workdir, console, command, interruption, shared=shared(config)) as run,
    ):
        run.say(f"{'devices':9} {devices()}")
        run_stages(run, config.stages)
        if hosts.leads():
            show_tables(run)


def _tell(message: str, style: str = "") -> None:
    console = Console(stderr=True, style=style)
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def _of_main_thread(unraisable: sys.UnraisableHookArgs) -> None:
    """Threads of libraries print what goes wrong in them; what matters of it is raised here too."""
    if threading.current_thread() is threading.main_thread():
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Entry point: exit status 0; 2 with one message for what the user can mend; 75 when told to
    stop, as schedulers understand "try again" (EX_TEMPFAIL)."""
    sys.unraisablehook = _of_main_thread
    keep_freed_memory()
    try:
        app.run(lambda _: launch(Console(highlight=False)), flags_parser=_parse)
    except Interrupted as stopped:
        _tell(f"jaxfer: {stopped}; the same command goes on from there")
        _end(75)
    except UserError as error:
        _refuse(error)
    except Exception as error:
        told = in_words(error)
        if told is None:
            if jax.process_count() > 1:
                # Waiting for the others in good order, this process would keep them waiting.
                traceback.print_exc()
                _end(1)
            raise
        _tell(f"jaxfer: {told}", "red")
        _end(75 if isinstance(told, LostProcess) else 2)


def _refuse(error: UserError) -> NoReturn:
    _tell(f"jaxfer: {error}", "red")
    _end(2)


def _end(status: int) -> NoReturn:
    """Ends at once: threads of libraries may still be at what has failed, and tell of it at
    length; other processes would be waited for that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
