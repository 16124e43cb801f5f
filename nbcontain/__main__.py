"""`nbcontain` on a terminal: the same commands, docker's exit codes, plain text."""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from collections.abc import Sequence

import nbcontain.runtime.later  # noqa: F401 - for its effect

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.errors import NbcontainError
    from nbcontain.runtime.zygotes import Zygote

_STARTING = ("run", "start", "restart", "doctor")
_FAILED, _INTERRUPTED = 125, 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: the container's own, or docker's 1, 125, 126, 127, 130.

    Those of this process's own command line end it, if nothing is left to be done.
    """
    if words is None:
        _have_standard_streams()
    if words is None and isinstance(sys.stdout, io.TextIOWrapper):
        # Names and arguments may be any bytes: what is no text in this locale is written out, and no error.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _status(sys.argv[1:] if words is None else list(words))
    except KeyboardInterrupt:
        # Whatever it was doing: most of all while it imported what the command needs, or on the way out.
        print("Interrupted", file=sys.stderr)
        status = _INTERRUPTED
    if words is None:
        _leave(status)
    return status


def _have_standard_streams() -> None:
    """Who is begun without some (`>&-`) has /dev/null: what is opened next would get their numbers otherwise."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


def _leave(status: int) -> None:
    """End without Python's farewell, which takes apart what goes with the process. Not where somebody wants to be
    called at the end, or works on until then."""
    import atexit

    threading = sys.modules.get("threading")
    goes_on = threading is not None and any(not each.daemon for each in threading.enumerate()[1:])
    called = getattr(atexit, "_ncallbacks", lambda: 1)()
    if goes_on or called or "concurrent.futures.thread" in sys.modules:
        return
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        # Which the farewell tells of.
        return
    os._exit(status)


def _status(words: list[str]) -> int:
    """Run one command."""
    # Modules are no garbage: to look for some while they are made takes a tenth of a short command's time.
    gc.disable()
    # Before anything that is needed here is imported: it takes longer than that.
    zygote = _begun(words)
    from nbcontain.errors import ContainerFailed, NbcontainError
    from nbcontain.options import HelpAsked

    try:
        status = _run(words, zygote)
        sys.stdout.flush()
        return status
    except HelpAsked as asked:
        print(asked, end="")
        return 0
    except ContainerFailed as error:
        # The program has said what it had to say, as with docker.
        return error.exit_status
    except NbcontainError as error:
        from nbcontain.magic_names import on_a_terminal

        for line in error.done:
            print(line)
        print(on_a_terminal("\n".join(error.lines())), file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # Whoever read us has gone (head, a closed pager): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            raise
        # Of the store's own files DiskFull and DiskFailed tell.
        print(f"nbcontain: cannot write to standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    finally:
        gc.enable()


def _run(words: list[str], zygote: Zygote | None) -> int:
    import argparse

    from nbcontain.commands import overview, parse_words

    # Its words are English, as ours are: to look for others takes a module, and the disk for each of them.
    argparse._ = str  # type: ignore[attr-defined]
    if len(words) > 1 and words[0] == "help":
        words = [*words[1:], "--help"]
    if not words or words[0] in ("--help", "-h", "help"):
        print("nbcontain: a container engine without a daemon\n\nusage: nbcontain COMMAND [OPTIONS]\n")
        print(overview())
        return 0
    if words[0] in ("--version", "-v"):
        words = ["version"]
    command, options = parse_words("", words)
    from nbcontain.draw import draw
    from nbcontain.engine import Engine
    from nbcontain.errors import NbcontainError

    gc.freeze()
    gc.enable()
    with Engine(zygote=zygote) as engine:
        try:
            code = draw(command.function(engine, options))
        except NbcontainError as error:
            error.exit_status = _exit_status(command.name, options, error)
            raise
        if engine.place.is_new:
            print(f"{engine.place.notice}; NBCONTAIN_ROOT names another place", file=sys.stderr)
        return code


def _exit_status(verb: str, options: object, error: NbcontainError) -> int:
    """As docker: 125 is for who runs a container, and for a line that cannot be read; of exec that is waited for, 127
    or 126 for a program that did not come to run, and else 1. A program's own status is passed on.
    """
    from nbcontain.errors import CommandNotFound, ContainerFailed, DirectoryNotFound, SetupFailed, UserNotFound

    if isinstance(error, ContainerFailed):
        return error.exit_status
    if verb == "run":
        # Whatever else is amiss, also another container or a network that is not there.
        return _FAILED if error.exit_status == 1 else error.exit_status
    if verb == "exec" and isinstance(error, SetupFailed):
        if getattr(options, "detach", False) or isinstance(error, UserNotFound):
            return 1
        return 127 if isinstance(error, (CommandNotFound, DirectoryNotFound)) else 126
    return 1 if error.exit_status == _FAILED else error.exit_status


def _begun(words: Sequence[str]) -> Zygote | None:
    """What containers come from, for a command that is going to need it: it starts while the command is imported."""
    if not words or words[0] not in _STARTING or (words[0] == "doctor" and "--cached" in words):
        return None
    from nbcontain.runtime.zygotes import Zygote

    try:
        return Zygote()
    except OSError:
        # What is wrong is told by the first launch that needs it.
        return None


if __name__ == "__main__":
    sys.exit(main())
