"""Which of a container's calls are answered for the kernel, or pretended, and the filter that says so. Pure; kernel.

There are seven groups: `ids`, users and owners, where only one id exists; `files`, opens of what a mounted /proc and
/dev would give; `guard`, changes to the files of the host that are handed in, where the caller is the host's root;
`net`, connections, where nothing else leads out of networks; `translated`, changes by paths that may be the host's;
`strays`, opens by paths that a library which is to translate them has not seen; `peers`, limits of processes, where
this machine's are seen, as they are too where paths are translated.
"blind" stands for a filter that only pretends.
"""

from __future__ import annotations

from functools import cache

from nbcontain.linux import filter_bytes, seccomp, syscalls
from nbcontain.oci.seccomp import Argument, Rule, Seccomp
from nbcontain.runtime.rungs import ALONE

GET_IDS = ("getuid", "geteuid", "getresuid", "getgid", "getegid", "getresgid", "getgroups")
SET_IDS = (
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
)  # fmt: skip
OWNERS = ("chown", "lchown", "fchown", "fchownat")
NODES = ("mknod", "mknodat")
OPENS = ("open", "openat")
"""The latter only where it begins at the working directory: relative to a directory that is open, as whoever walks a
tree asks, nothing is served, and an answer costs far more than the call itself."""
GUARDED = ("fchmod", "fchown", "fchown32", "fsetxattr", "fremovexattr")
"""All that changes what is open, but for its contents and times."""
BY_PATH = (
    "chmod", "fchmodat", "truncate", "utime", "utimes", "futimesat", "utimensat", "utimensat_time64", "setxattr",
    "lsetxattr", "removexattr", "lremovexattr",
)  # fmt: skip
"""What changes a file by its path and takes no right to open it, as Landlock sees it (truncate(2) before Linux 6.2)."""
OPEN = ("fchmod", "fsetxattr", "fremovexattr")
"""The same of what is open, which takes no more than to read it: of this machine's files some may be read."""
NAMES = {"ids": (*GET_IDS, *SET_IDS, *OWNERS), "files": OPENS, "guard": GUARDED, "translated": (*BY_PATH, *OPEN),
         "strays": OPENS}  # fmt: skip
UNTRANSLATED = (
    "openat2", "fchmodat2", "execveat", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "file_getattr",
    "file_setattr", "open_tree", "open_tree_attr", "move_mount", "mount_setattr", "fspick", "io_uring_setup",
)  # fmt: skip
"""Calls with paths that are younger than PRoot 5.4, and so this machine's. Programs go on as on older kernels."""
_NO_RINGS = Rule(("io_uring_setup",), "SCMP_ACT_ERRNO")
"""What is done by them no filter sees. Programs do without."""
_CONNECTING = (
    Rule(("connect", "listen"), "SCMP_ACT_NOTIFY"),
    # The same of programs of 32 bits, by their numbers there.
    *(Rule(("socketcall",), "SCMP_ACT_NOTIFY", None, (Argument(0, each),)) for each in (3, 4)),
    # Both connect, too. Programs go on with connect(2) where MSG_FASTOPEN is not supported (EOPNOTSUPP).
    *(
        Rule(names, "SCMP_ACT_ERRNO", 95, (Argument(index, 0x2000_0000, "SCMP_CMP_MASKED_EQ", 0x2000_0000),))
        for names, index in ((("sendto", "sendmmsg"), 3), (("sendmsg",), 2))
    ),
)
_INT = 0xFFFF_FFFF


def _is(index: int, value: int, mask: int = _INT) -> Argument:
    """Of a number of 32 bits the kernel passes over what is above."""
    return Argument(index, mask, "SCMP_CMP_MASKED_EQ", value)


_NO_DOORS = (
    # AF_UNIX: EAFNOSUPPORT, as of a kernel that was made without.
    Rule(("socket",), "SCMP_ACT_ERRNO", 97, (_is(0, 1),)),
    # SOCK_DGRAM, and SOCK_RAW, which is the same: each of a pair sends wherever it is told to (unix(7)).
    *(Rule(("socketpair",), "SCMP_ACT_ERRNO", 97, (_is(0, 1), _is(1, kind, 0xF))) for kind in (2, 3)),
    # The same of programs of 32 bits, which go on with those.
    *(Rule(("socketcall",), "SCMP_ACT_ERRNO", 38, (_is(0, each),)) for each in (1, 8)),
)
"""Sockets that have a place among files, or lead to one. PRoot passes over that of a datagram, another thread exchanges
what it has translated, and Landlock keeps nobody from such a place: whoever serves there (a session's bus, docker) does
what it is told.
"""
_NO_PEERS = Rule(("prlimit64",), "SCMP_ACT_ERRNO", 1, (Argument(0, 0, "SCMP_CMP_NE"), Argument(2, 0, "SCMP_CMP_NE")))
"""Limits of anybody but who asks. Landlock keeps signals inside, but not what the kernel itself sends (RLIMIT_CPU)."""
_AT_CWD, _AT_EMPTY_PATH, _ENOSYS = 0xFFFF_FF9C, 0x1000, 38
_TYPE, _DEVICES = 0o170000, (0o020000, 0o060000)


def _of_what_is_open(name: str, index: int, action: str, errno: int | None = None) -> Rule:
    return Rule((name,), action, errno, (Argument(index, _AT_EMPTY_PATH, "SCMP_CMP_MASKED_EQ", _AT_EMPTY_PATH),))


_GUARDED_BY_FLAG = (
    _of_what_is_open("fchownat", 4, "SCMP_ACT_NOTIFY"),
    # Younger ones, without which programs go on as on older kernels.
    _of_what_is_open("fchmodat2", 3, "SCMP_ACT_ERRNO", _ENOSYS),
    _of_what_is_open("setxattrat", 2, "SCMP_ACT_ERRNO", _ENOSYS),
    _of_what_is_open("removexattrat", 2, "SCMP_ACT_ERRNO", _ENOSYS),
    _of_what_is_open("file_setattr", 4, "SCMP_ACT_ERRNO", _ENOSYS),
)
"""The same, by calls that take an empty path for what is open."""


@cache
def filter_of(words: str, machine: str) -> bytes:
    """The filter for these groups, as `confine.install` takes it."""
    named = words.split()
    rules = []
    if "blind" in named:
        # Success, and nothing happens; mostly that is what programs want to hear (as Charliecloud does it).
        rules.append(Rule((*SET_IDS, *OWNERS), "SCMP_ACT_ERRNO", 0))
        rules += _nodes("SCMP_ACT_ERRNO", 0)
    for group, names in NAMES.items():
        if group in named and words not in ALONE:
            rules.append(Rule(tuple(name for name in names if name != "openat"), "SCMP_ACT_NOTIFY"))
    if {"files", "strays"} & {*named}:
        at_cwd = Argument(0, _INT, "SCMP_CMP_MASKED_EQ", _AT_CWD)
        rules.append(Rule(("openat",), "SCMP_ACT_NOTIFY", None, (at_cwd,)))
    if "ids" in named:
        rules += _nodes("SCMP_ACT_NOTIFY", None)
        rules.append(Rule(("prctl",), "SCMP_ACT_NOTIFY", None, (Argument(0, syscalls.PR_SET_KEEPCAPS),)))
    if "guard" in named:
        rules += _GUARDED_BY_FLAG
    if "net" in named:
        rules += _CONNECTING
    if "translated" in named:
        rules += [Rule(UNTRANSLATED, "SCMP_ACT_ERRNO", _ENOSYS), *_NO_DOORS]
    if {"peers", "translated"} & {*named}:
        rules.append(_NO_PEERS)
    if {"guard", "net"} & {*named}:
        rules.append(_NO_RINGS)
    own, others = seccomp.MACHINES[machine]
    profile = Seccomp("SCMP_ACT_ALLOW", None, (own, *others), (), tuple(rules))
    flags = 0 if words in ALONE else seccomp.NEW_LISTENER
    return filter_bytes.packed(seccomp.program(profile, machine), flags)


def _nodes(action: str, errno: int | None) -> list[Rule]:
    """Device nodes only: pipes, sockets and files can be made anyway."""
    return [
        Rule((name,), action, errno, (Argument(index, _TYPE, "SCMP_CMP_MASKED_EQ", kind),))
        for name, index in (("mknod", 1), ("mknodat", 2))
        for kind in _DEVICES
    ]
