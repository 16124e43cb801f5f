"""The Python that goes into a host image, and which of its files are worth their bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from fnmatch import fnmatchcase

from nbcontain.errors import BuildError
from nbcontain.values import dataclass

_ASKS = (
    "import json, os, sys, sysconfig; print(json.dumps(["
    "getattr(sys, '_base_executable', '') or sys.executable, sys.base_prefix, sys.base_exec_prefix, "
    "sysconfig.get_path('stdlib'), '.'.join(map(str, sys.version_info[:2]))]))"
)
_UNWANTED_DIRECTORIES = (
    "__pycache__", "__phello__", "test", "tests", "idlelib", "idle_test", "turtledemo", "ensurepip", "tkinter",
    "lib2to3", "pydoc_data", "site-packages", "dist-packages", "config-*",
)  # fmt: skip
_UNWANTED_FILES = (
    "*.pyc", "*.a", "*.o", "*.exe", "*.bat", "*.ps1", "turtle.py", "sitecustomize.py", "usercustomize.py",
    "EXTERNALLY-MANAGED", "_tkinter.*", "_test*.so", "_xxtestfuzz.*", "xxlimited*", "_ctypes_test.*", "nis.*",
)  # fmt: skip
"""Tests, a desktop's modules and those that only repeat the source. `nis` would bring Kerberos along, and
EXTERNALLY-MANAGED speaks of the host's package manager."""


@dataclass(frozen=True, slots=True)
class HostPython:
    """A base Python, never a virtual environment: where it lies, as `sys` and `sysconfig` tell."""

    executable: str
    prefix: str
    exec_prefix: str
    stdlib: str
    version: str

    @classmethod
    def running(cls) -> HostPython:
        """The one this code runs on; in a virtual environment, what that was made of."""
        version = "{}.{}".format(*sys.version_info)
        # An embedded Python has no executable, but most often comes with one.
        executable = getattr(sys, "_base_executable", "") or sys.executable or f"{sys.base_prefix}/bin/python{version}"
        stdlib = sysconfig.get_path("stdlib")
        return cls(executable, sys.base_prefix, sys.base_exec_prefix, stdlib, version)._checked()

    @classmethod
    def of(cls, executable: str) -> HostPython:
        """The one at this path, which is executed to ask it. Raises BuildError if it does not answer."""
        try:
            asked = subprocess.run([executable, "-I", "-c", _ASKS], capture_output=True, check=True, timeout=20)
            return cls(*json.loads(asked.stdout))._checked()
        except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
            raise BuildError(f"{executable} is no Python that can be asked", why=str(error)) from error

    def _checked(self) -> HostPython:
        if not os.path.isfile(self.executable) or not os.path.isfile(f"{self.stdlib}/os.py"):
            raise BuildError(
                "this Python cannot go into an image",
                why=f"{self.executable} or its standard library in {self.stdlib} is not there as files",
                hint="Name another Python, such as /usr/bin/python3.",
            )
        return self

    @property
    def is_apart(self) -> bool:
        """Whether it lies in a prefix of its own. Such a Python was built by hand more often than not, and
        has tens of megabytes of debugging sections, which distributions take out of theirs."""
        return os.path.realpath(self.prefix) != "/usr"

    def owns(self, path: str) -> bool:
        """Whether the resolved `path` lies in its prefix."""
        return path.startswith(f"{os.path.realpath(self.prefix)}/")

    def without_prefix(self, path: str, prefix: str) -> bytes | None:
        """sysconfig's build variables with `prefix` for the old one, so that they are true in the image.

        None for all other files, which go in as they are.
        """
        if not os.path.basename(path).startswith("_sysconfigdata") or prefix == self.prefix:
            return None
        with open(path, "rb") as file:
            return file.read().replace(os.fsencode(self.prefix), os.fsencode(prefix))


def standard_library(python: HostPython) -> Iterator[str]:
    """Paths of the standard library's files, sorted in each directory, without what nobody runs in a container."""
    extensions = os.path.join(python.exec_prefix, os.path.relpath(python.stdlib, python.prefix))
    for root in dict.fromkeys((python.stdlib, extensions)):
        for above, directories, names in os.walk(root):
            directories[:] = sorted(name for name in directories if not _matches(name, _UNWANTED_DIRECTORIES))
            for name in sorted(names):
                path = os.path.join(above, name)
                if not _matches(name, _UNWANTED_FILES) and os.access(path, os.R_OK):
                    yield path


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
