"""The command ``cst``: one module a command, loaded when it is called.

What the user handed over and cannot be used is one line on standard error and exit status 2; a
solver or a training that fails, or a lack of memory, exits with 1, an interruption with 130.
``CST_DEBUG=1`` shows tracebacks.
"""

import difflib
import errno
import importlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import metadata
from typing import Any

from cst_operator.errors import InputError, SolverError, TrainingError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": ("demo", "Demo", "the whole path on generated data, with a report (10 minutes)"),
    "doctor": ("doctor", "Doctor", "versions, devices, memory: what to send with a question"),
    "inspect": (
        "inspection",
        "Inspect",
        "what is in a mesh file, data set or run, and what is wrong",
    ),
    "generate": ("generation", "Generate", "solve random problems: data to learn from"),
    "convert": ("conversion", "Convert", "a data set of files that others wrote"),
    "verify": ("storage", "Verify", "check every checksum of a data set or a run"),
    "pack": ("storage", "Pack", "one file instead of a data set's many"),
    "train": ("train", "Train", "train a model on a data set, or resume a training"),
    "evaluate": ("evaluation", "Evaluate", "errors of a trained model on a data set"),
    "predict": ("prediction", "Predict", "a trained model's answer on a mesh file"),
    "upsample": ("prediction", "Upsample", "from a field on a coarse mesh to a fine mesh"),
    "export": ("exporting", "Export", "a trained model for other programs, in Python and C++"),
    "compare": ("comparing", "Compare", "several models on the same data: a table and a report"),
}
"""Module, class and one-line summary of every command."""

_PROBLEM, _FAILURE, _INTERRUPTED = 2, 1, 130
_SMALLER = {
    "train": "lower --fit.batch-size or raise --fit.accumulate; docs/training.rst has more under "
    "Fitting the memory",
    "evaluate": "lower --batch-size, or take --device cpu",
    "compare": "lower --batch-size, or take --device cpu",
    "predict": "take --device cpu, or fewer points or times at once",
    "upsample": "take --device cpu, or fewer points or times at once",
}
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after the program's name; those of the process if omitted.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if arguments else _PROBLEM
    if arguments[0] in ("-V", "--version"):
        print(f"cst_operator {_version()}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"perhaps {near[0]!r}; " if near else ""
        return _say(f"there is no command {name!r}; {hint}cst --help lists them", _PROBLEM)
    try:
        with _short_warnings():
            return _run(name, arguments[1:])
    except SystemExit as stop:  # from the parser, which has said why
        return stop.code if isinstance(stop.code, int) else _PROBLEM
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (InputError, OSError, SolverError, TrainingError) as error:
        if os.environ.get("CST_DEBUG"):
            raise
        failed = isinstance(error, (SolverError, TrainingError))
        return _say(_words(error), _FAILURE if failed else _PROBLEM)
    except (MemoryError, RuntimeError) as error:
        if os.environ.get("CST_DEBUG") or not _is_lack_of_memory(error):
            raise
        advice = _SMALLER.get(name, "take a machine with more memory, or a smaller problem")
        wanted = re.search(r"allocate ([\d.]+ \w+)", str(error))
        amount = f" for {wanted[1]} more" if wanted else ""
        return _say(f"there is no memory left{amount}; {advice}", _FAILURE)


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether numpy, a GPU or torch on a CPU had no more memory."""
    kinds = ("MemoryError", "OutOfMemoryError")  # torch's by its name: it need not be loaded
    named = any(kind.__name__ in kinds for kind in type(error).__mro__)
    return named or "can't allocate memory" in str(error)


def _run(name: str, arguments: list[str]) -> int:
    import tyro

    module, kind, _ = COMMANDS[name]
    command = getattr(importlib.import_module(f"cst_operator.cli.{module}"), kind)
    prepare = getattr(command, "defaults", None)
    options: dict[str, Any] = {} if prepare is None else {"default": prepare(arguments)}
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            parsed = tyro.cli(
                command,
                args=arguments,
                prog=f"cst {name}",
                description=command.help,
                config=(tyro.conf.FlagCreatePairsOff,),
                **options,
            )
    except SystemExit as stop:
        refusal = _refusal(stop)
        if refusal is not None:  # our own words instead of the parser's frame around them
            raise refusal from None
        sys.stderr.write(said.getvalue())
        raise
    status: int = parsed.run()
    return status


def _refusal(error: BaseException) -> InputError | None:
    """The configuration's own error that made the parser give up, if it was one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__context__
    return cause


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "usage: cst COMMAND [OPTIONS]",
        "",
        "From your mesh and your solver to a trained surrogate, and back to your mesh.",
        "",
        "commands:",
        *(f"  {name:{width}}  {summary}" for name, (_, _, summary) in COMMANDS.items()),
        "",
        "a first session:",
        "  cst demo                                          everything below, by itself",
        "  cst generate poisson --n 200 --out data/poisson",
        "  cst train --data data/poisson --out runs/first",
        "  cst evaluate runs/first --data data/poisson",
        "  cst predict runs/first --mesh new.vtu --out answer.vtu",
        "",
        "cst COMMAND --help explains a command; cst --version tells the version.",
    ]
    return "\n".join(lines)


def _version() -> str:
    try:
        return metadata.version("cst-operator")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        remedy = (
            "free some space, or write elsewhere"
            if error.errno in _ROOM
            else "check the path and its permissions"
        )
        return f"{where}{error.strerror}; {remedy}"
    return str(error) or type(error).__name__


def _say(text: str, status: int) -> int:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return status


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings as one line each, without the line of code that raised them."""

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
