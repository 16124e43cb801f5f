"""Small imitations of places where notebooks run. python boxes.py NAME WORD…: this Python in one, with these words.

A filter refuses what is refused there, as it is there; what else such a place is like (its disk, its network) it has
of this machine.
"""

from __future__ import annotations

import errno
import os
import platform
import sys

from nbcontain.linux import seccomp, syscalls
from nbcontain.oci.seccomp import Argument, Rule, Seccomp

_REFUSED = "SCMP_ACT_ERRNO"
_MOUNTS = ("mount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr")
_PIVOT = Rule(("pivot_root",), _REFUSED, errno.EPERM)
_NAMESPACES = (
    # Whose arguments a filter cannot look at: then clone is tried (Docker's profile does it so).
    Rule(("clone3",), _REFUSED, errno.ENOSYS),
    *(
        Rule(("clone", "unshare"), _REFUSED, errno.EPERM, (Argument(0, flag, "SCMP_CMP_MASKED_EQ", flag),))
        for flag in (
            syscalls.CLONE_NEWUSER, syscalls.CLONE_NEWNS, syscalls.CLONE_NEWPID, syscalls.CLONE_NEWNET,
            syscalls.CLONE_NEWUTS, syscalls.CLONE_NEWIPC,
        )
    ),
)  # fmt: skip
_TRACES = Rule(("ptrace", "process_vm_readv", "process_vm_writev"), _REFUSED, errno.EPERM)
_NEW = Argument(1, seccomp.NEW_LISTENER, "SCMP_CMP_MASKED_EQ", seccomp.NEW_LISTENER)
_LISTENER = Rule(("seccomp",), _REFUSED, errno.EBUSY, (_NEW,))
_UNMOUNTED = (_PIVOT, Rule(_MOUNTS, _REFUSED, errno.EACCES))

BOXES = {
    "colab": (_PIVOT,),
    "binder": _UNMOUNTED,
    "pod": (*_UNMOUNTED, *_NAMESPACES),
    "answered": (*_UNMOUNTED, *_NAMESPACES, _LISTENER),
    "bare": (*_UNMOUNTED, *_NAMESPACES, _TRACES),
}
"""Root that may mount, but not change its root; user namespaces in which nothing can be mounted (as AppArmor has it);
Docker's filter around somebody without capabilities, or around root; the same where somebody answers calls already;
and without ptrace."""


if __name__ == "__main__":
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    place = Seccomp("SCMP_ACT_ALLOW", rules=BOXES[sys.argv[1]])
    syscalls.seccomp(seccomp.program(place, platform.machine()))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
