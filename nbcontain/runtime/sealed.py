"""The interpreter in memory, which nobody can change any more: what runs inside a container is forked from one.

A container's first process can reach its own /proc/self/exe. Were that the host's interpreter, root inside
could overwrite it (CVE-2019-5736). Run by the kernel, and by a supervisor that was idle.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
SMALL = ENVIRONMENT | {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
"""Of an interpreter that is to take little memory: what is free is given back, and not kept in lists by size."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_copy(executable: str) -> int:
    """A descriptor of a copy of this file that can be executed and not be changed (memfd_create(2)). Raises OSError."""

    def fill(copy: int) -> None:
        with open(executable, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            done = 0
            while done < size:
                done += os.sendfile(copy, file.fileno(), done, size - done)

    return _sealed("python", fill)


def sealed_file(name: str, contents: Mapping[int, bytes]) -> int:
    """The same of a file with these contents, each at its place. Raises OSError."""

    def fill(file: int) -> None:
        for place, data in contents.items():
            if os.pwrite(file, data, place) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return _sealed(name, fill)


def _sealed(name: str, fill: Callable[[int], None]) -> int:
    file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fill(file)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def environment(executable: str) -> dict[str, str]:
    """What a copy of this interpreter is executed with."""
    if executable.startswith("/usr/"):
        return ENVIRONMENT
    # A copy in memory has no directory, so libraries that lie beside the interpreter's would not be found (conda).
    return ENVIRONMENT | {"LD_LIBRARY_PATH": os.path.join(os.path.dirname(os.path.dirname(executable)), "lib")}


def command(executable: str, program: str, *arguments: str, environment: bool = False) -> list[str]:
    """The command line that has an interpreter run `program` and know nothing of its user's environment.

    With `environment` it does as that says, which is ours, as SMALL is.
    """
    isolated = ["-s", "-P"] if environment else ["-I"]
    # Nobody else imports these modules, so that nobody else would leave them compiled for the next start.
    without_cache = ["-B"] if sys.dont_write_bytecode else []
    return [executable, *isolated, "-S", *without_cache, "-c", program, *arguments]
