"""A kernel as gVisor of 2022 was. python old_kernel.py WORD…: this Python on it, with these words.

What that lacks is refused by a filter of calls; that it follows symlinks where it must not takes `pretended`.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from typing import Any

import pytest

from nbcontain.linux import directories, seccomp, syscalls
from nbcontain.oci.seccomp import Argument, Rule, Seccomp

_F_OFD_GETLK, _F_OFD_SETLK, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37, 36, 37
_REFUSED = "SCMP_ACT_ERRNO"
_ABSENT = ("pidfd_open", "pidfd_send_signal", "openat2", "landlock_create_ruleset", "landlock_restrict_self")
_MOUNTS = ("mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr")
LACKS = Seccomp(
    "SCMP_ACT_ALLOW",
    rules=(
        Rule(_ABSENT, _REFUSED, errno.ENOSYS),
        Rule(_MOUNTS, _REFUSED, errno.EPERM),
        Rule(("setns",), _REFUSED, errno.EOPNOTSUPP),
        *(Rule(("fcntl",), _REFUSED, errno.EINVAL, (Argument(1, each),)) for each in (_F_OFD_GETLK, _F_OFD_SETLK)),
        *(
            Rule(("prctl",), _REFUSED, errno.EINVAL, (Argument(0, each),))
            for each in (_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER)
        ),
        Rule(
            ("seccomp",), _REFUSED, errno.EINVAL,
            (Argument(1, seccomp.NEW_LISTENER, "SCMP_CMP_MASKED_EQ", seccomp.NEW_LISTENER),),
        ),
    ),
)  # fmt: skip


def pretended(patch: pytest.MonkeyPatch) -> None:
    """For this test: O_NOFOLLOW keeps nobody from following a symlink to a directory, who asks for a directory."""
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_DIRECTORY and not flags & os.O_PATH:
            flags &= ~os.O_NOFOLLOW
        return real(path, flags, mode, dir_fd=dir_fd)

    def refused(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    patch.setattr(os, "open", opened)
    patch.setattr(syscalls, "openat2", refused)
    patch.setattr(directories, "_FOLLOWS", directories.follows("/proc/self"))


if __name__ == "__main__":
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp(seccomp.program(LACKS, platform.machine()))
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
