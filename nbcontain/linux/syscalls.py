"""The kernel's calls that Python 3.11 does not have, by ctypes, each declared once.

They raise OSError with the kernel's errno and, where there is one, the path. Numbers are those of
x86-64 and aarch64, which agree on everything newer than Linux 5.0.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
_IN_CLOEXEC = 0o2000000

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_ATIME = 0x70
"""Which bits say one of three: relatime (0), noatime, strictatime."""
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_IS_ARM = os.uname().machine == "aarch64"
_SYS_PIVOT_ROOT = 41 if _IS_ARM else 155
_SYS_KEYCTL = 219 if _IS_ARM else 250
SYS_SECCOMP = 277 if _IS_ARM else 317
SYS_CLONE = 220 if _IS_ARM else 56
_SYS_CAPGET = 90 if _IS_ARM else 125
SYS_CAPSET = 91 if _IS_ARM else 126
_SYS_BPF = 280 if _IS_ARM else 321
_SYS_PERSONALITY = 92 if _IS_ARM else 135
_SYS_IOPRIO_SET = 30 if _IS_ARM else 251
_SYS_SCHED_SETATTR = 274 if _IS_ARM else 314
_SYS_STATX = 291 if _IS_ARM else 332

_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_OPEN_TREE_CLONE = 1
_KEYCTL_JOIN_SESSION_KEYRING = 1
_STATX_BTIME = 0x800
SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522

_int, _uint, _long, _ulong = ctypes.c_int, ctypes.c_uint, ctypes.c_long, ctypes.c_ulong
_text, _pointer = ctypes.c_char_p, ctypes.c_void_p


def _declare(name: str, *arguments: type) -> ctypes._NamedFuncPointer:
    function = getattr(_libc, name)
    function.argtypes = arguments
    function.restype = _int
    return function  # type: ignore[no-any-return]


def _numbered(number: int, *arguments: type) -> ctypes._NamedFuncPointer:
    """A call without a wrapper in every libc. Each has a function object of its own, since argtypes belong to it."""
    prototype = ctypes.CFUNCTYPE(_long, _long, *arguments, use_errno=True)
    function = prototype(("syscall", _libc))
    return lambda *values: function(number, *values)  # type: ignore[return-value]


_inotify_init1 = _declare("inotify_init1", _int)
_inotify_add_watch = _declare("inotify_add_watch", _int, _text, ctypes.c_uint32)
_epoll_ctl = _declare("epoll_ctl", _int, _int, _int, _text)
_syncfs = _declare("syncfs", _int)
_fstatfs = _declare("fstatfs", _int, _text)
_sync_file_range = _declare("sync_file_range", _int, ctypes.c_int64, ctypes.c_int64, _uint)
_unshare = _declare("unshare", _int)
_setns = _declare("setns", _int, _int)
_mount = _declare("mount", _text, _text, _text, _ulong, _text)
_umount2 = _declare("umount2", _text, _int)
_ptrace = _declare("ptrace", _int, _int, _pointer, _pointer)
_prctl = _declare("prctl", _int, _ulong, _ulong, _ulong, _ulong)
_limits = ctypes.POINTER(ctypes.c_uint64 * 2)
_getrlimit, _setrlimit = _declare("getrlimit", _int, _limits), _declare("setrlimit", _int, _limits)
_setfsuid, _setfsgid = _declare("setfsuid", _uint), _declare("setfsgid", _uint)
_sethostname = _declare("sethostname", _text, ctypes.c_size_t)
_setdomainname = _declare("setdomainname", _text, ctypes.c_size_t)
_pivot_root = _numbered(_SYS_PIVOT_ROOT, _text, _text)
# From 424 on a call has one number on all machines.
_open_tree = _numbered(428, _int, _text, _uint)
_move_mount = _numbered(429, _int, _text, _int, _text, _uint)
_fsopen = _numbered(430, _text, _uint)
_fsconfig = _numbered(431, _int, _uint, _text, _text, _int)
_fsmount = _numbered(432, _int, _uint, _uint)
_mount_setattr = _numbered(442, _int, _text, _uint, _text, ctypes.c_size_t)
_openat2 = _numbered(437, _int, _text, _text, ctypes.c_size_t)
_close_range = _numbered(436, _uint, _uint, _uint)
_keyctl = _numbered(_SYS_KEYCTL, _int, _pointer)
_seccomp = _numbered(SYS_SECCOMP, _uint, _uint, _pointer)
_landlock_create_ruleset = _numbered(444, _text, ctypes.c_size_t, _uint)
_landlock_add_rule = _numbered(445, _int, _int, _text, _uint)
_landlock_restrict_self = _numbered(446, _int, _uint)
_pidfd_getfd = _numbered(438, _int, _int, _uint)
_capget = _numbered(_SYS_CAPGET, _pointer, _pointer)
_capset = _numbered(SYS_CAPSET, _pointer, _pointer)
_bpf = _numbered(_SYS_BPF, _int, _text, _uint)
_personality = _numbered(_SYS_PERSONALITY, _ulong)
_ioprio_set = _numbered(_SYS_IOPRIO_SET, _int, _int, _int)
_sched_setattr = _numbered(_SYS_SCHED_SETATTR, _int, _text, _uint)
_statx = _numbered(_SYS_STATX, _int, _text, _int, _uint, _text)


def _checked(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


# --- watching and syncing ---------------------------------------------------------------------


def inotify_init() -> int:
    """A file descriptor that tells of changes (inotify(7)), close-on-exec."""
    return _checked(_inotify_init1(_IN_CLOEXEC))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Tell of `mask`'s changes to `path` on `fd`; gives the watch descriptor."""
    return _checked(_inotify_add_watch(fd, os.fsencode(path), mask), path)


def file_system_type(fd: int) -> int:
    """The magic number of the file system that `fd` is in (statfs(2))."""
    # The first field of a structure that is 120 bytes on every 64-bit machine.
    answer = ctypes.create_string_buffer(256)
    _checked(_fstatfs(fd, answer))
    return int(struct.unpack_from("l", answer.raw)[0])


def birth_ns(fd: int, name: bytes = b"") -> int | None:
    """When what is open as `fd`, or is there as `name`, was made (statx(2)); None where the file system knows not."""
    answer = ctypes.create_string_buffer(256)
    _checked(_statx(fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, _STATX_BTIME, answer), os.fsdecode(name))
    seconds, ns = struct.unpack_from("qI", answer, 80)
    return seconds * 1_000_000_000 + ns if struct.unpack_from("I", answer)[0] & _STATX_BTIME else None


def syncfs(fd: int) -> None:
    """Write out everything of the file system that `fd` is in."""
    _checked(_syncfs(fd))


def begin_writing_out(fd: int, offset: int, size_bytes: int) -> None:
    """Have the disk begin with this part of a file, so that a later fsync finds less to do; no promise at all."""
    # SYNC_FILE_RANGE_WRITE. Some file systems, and gVisor, know nothing of it.
    _sync_file_range(fd, offset, size_bytes, 2)


# --- processes and namespaces -----------------------------------------------------------------


def unshare(flags: int) -> None:
    """Leave the namespaces of CLONE_… `flags` for new ones (unshare(2)); CLONE_NEWUSER needs a single thread."""
    _checked(_unshare(flags))


def setns(fd: int, flags: int) -> None:
    """Enter the namespaces of `flags` of the process that pidfd `fd` names (Linux 5.8), or the one that `fd` is."""
    _checked(_setns(fd, flags))


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """Change or ask for something about this process (prctl(2))."""
    return _checked(_prctl(option, first, second, 0, 0))


def overwrite_words(name: bytes) -> None:
    """Put `name` where this process's arguments and environment began, and nothing after it (proc(5), cmdline), for
    whoever looks. Nothing of C may use its environment afterwards."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    first, last, start, end = map(int, fields[45:49])
    ctypes.memset(first, 0, last - first)
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(first, name, min(len(name), last - first - 1))


def setrlimit(number: int, soft: int, hard: int) -> None:
    """setrlimit(2), which the module `resource` has too, but that is one more to be loaded everywhere."""
    _checked(_setrlimit(number, (ctypes.c_uint64 * 2)(soft, hard)))


def lower_limit(number: int, soft: int) -> None:
    """Lower a soft limit to this, if it is higher (getrlimit(2)). The hard one stays."""
    _checked(_getrlimit(number, now := (ctypes.c_uint64 * 2)()))
    setrlimit(number, min(now[0], soft), now[1])


def sethostname(name: str) -> None:
    """The host name of this UTS namespace."""
    _checked(_sethostname(name.encode(), len(name.encode())))


def setdomainname(name: str) -> None:
    """The NIS domain name of this UTS namespace."""
    _checked(_setdomainname(name.encode(), len(name.encode())))


def setfsuid(uid: int) -> int:
    """Be this user for file systems, and for /proc. Gives who that was. What is refused is not told (setfsuid(2))."""
    return int(_setfsuid(uid))


def setfsgid(gid: int) -> int:
    """The same for the group."""
    return int(_setfsgid(gid))


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A copy of what another process has open as `number`, close-on-exec (Linux 5.6)."""
    return _checked(_pidfd_getfd(pidfd, number, 0))


def epoll_add(epoll: int, fd: int, events: int, data: int) -> None:
    """Have an epoll(7) tell of `fd`, by what its owner wrote there: `select.epoll` writes the number."""
    _checked(_epoll_ctl(epoll, 1, fd, struct.pack("=IQ" if not _IS_ARM else "=IxxxxQ", events, data)))


def close_range(first: int, last: int = 0x7FFF_FFFF) -> None:
    """Close every file descriptor from `first` to `last`, both included (Linux 5.9)."""
    _checked(_close_range(first, last, 0))


def close_others(kept: Iterable[int]) -> None:
    """Close every file descriptor but 0, 1, 2 and these."""
    start = 3
    for fd in sorted(kept):
        if fd > start:
            close_range(start, fd - 1)
        start = max(start, fd + 1)
    close_range(start)


def new_session_keyring() -> None:
    """Leave the session keyring that was inherited for a new, empty one."""
    _checked(_keyctl(_KEYCTL_JOIN_SESSION_KEYRING, None))


def let_trace() -> None:
    """Have the parent trace this process (PTRACE_TRACEME, ptrace(2))."""
    _checked(_ptrace(0, 0, None, None))


def capget() -> tuple[int, int, int]:
    """The effective, permitted and inheritable capabilities of this thread, as bit sets."""
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    _checked(_capget(header, data))
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("6I", data.raw[:24])
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capabilities of this thread."""
    _checked(_capset(*capability_words(effective, permitted, inheritable)))


def capability_words(*sets: int) -> tuple[bytes, bytes]:
    """Both arguments of capset(2) for the effective, permitted and inheritable set."""
    data = struct.pack("6I", *(each & 0xFFFF_FFFF for each in sets), *(each >> 32 for each in sets))
    return struct.pack("Ii", _CAPABILITY_VERSION_3, 0), data


def seccomp(program: bytes, flags: int = 0) -> int:
    """Have a program of classic BPF decide on every call from here on, in all children too (seccomp(2)).

    With SECCOMP_FILTER_FLAG_NEW_LISTENER it gives the descriptor that tells of calls (seccomp_unotify(2)), else 0.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    wanted = struct.pack("H6xP", len(program) // 8, ctypes.addressof(instructions))
    return _checked(_seccomp(SECCOMP_SET_MODE_FILTER, flags, wanted))


def attach_device_program(group: int, program: bytes) -> None:
    """Have a program of BPF decide on every device that is opened in this control group of version 2 (bpf(2))."""
    instructions, licence = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
    # BPF_PROG_LOAD of type BPF_PROG_TYPE_CGROUP_DEVICE.
    wanted = struct.pack(
        "=IIQQ104x", 15, len(program) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)
    )
    loaded = _checked(_bpf(5, wanted, len(wanted)))
    try:
        # BPF_PROG_ATTACH as BPF_CGROUP_DEVICE, with BPF_F_ALLOW_MULTI: groups below may only be stricter.
        wanted = struct.pack("=IIII", group, loaded, 6, 2)
        _checked(_bpf(8, wanted, len(wanted)))
    finally:
        os.close(loaded)


def personality(value: int) -> None:
    """What kind of machine this process sees (personality(2))."""
    _checked(_personality(value))


def ioprio_set(value: int) -> None:
    """How soon this process's reading and writing of disks is served (ioprio_set(2))."""
    _checked(_ioprio_set(1, 0, value))


def sched_setattr(attributes: bytes) -> None:
    """How this thread is scheduled: a struct sched_attr (sched_setattr(2))."""
    _checked(_sched_setattr(0, attributes, 0))


SECCOMP_FILTER_FLAG_NEW_LISTENER = 8


def landlock_version() -> int:
    """Which version of Landlock the kernel has. Raises OSError where it has none."""
    return _checked(_landlock_create_ruleset(None, 0, 1))


def landlock_ruleset(attributes: bytes) -> int:
    """A new set of rules (struct landlock_ruleset_attr), close-on-exec."""
    return _checked(_landlock_create_ruleset(attributes, len(attributes), 0))


def landlock_allow(rules: int, kind: int, attributes: bytes) -> None:
    """Add one rule."""
    _checked(_landlock_add_rule(rules, kind, attributes, 0))


def landlock_restrict(rules: int) -> None:
    """Have the rules hold for this thread and its children, for good."""
    _checked(_landlock_restrict_self(rules, 0))


# --- mounts -----------------------------------------------------------------------------------


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2). `target` is followed through symlinks: never give one that a container could have made."""
    data = options.encode("utf-8", "surrogateescape")
    _checked(_mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, data), target)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _checked(_umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` this mount namespace's root and put the old one at `put_old`."""
    _checked(_pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root)


def open_tree(directory_fd: int, path: str = "", *, clone: bool = True, recursive: bool = False) -> int:
    """A detached copy of the mount at `path` (of the whole tree below, if `recursive`), close-on-exec."""
    flags = AT_EMPTY_PATH | os.O_CLOEXEC | (_OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    return _checked(_open_tree(directory_fd, os.fsencode(path), flags), path)


def new_mount(kind: str, options: tuple[tuple[str, str | None], ...] = (), attributes: int = 0) -> int:
    """A detached new mount of file system `kind`, close-on-exec (fsopen, fsconfig, fsmount)."""
    context = _checked(_fsopen(kind.encode(), _CLOEXEC), kind)
    try:
        for name, value in options:
            if value is None:
                _checked(_fsconfig(context, _FSCONFIG_SET_FLAG, name.encode(), None, 0), f"{kind} {name}")
            else:
                text = value.encode("utf-8", "surrogateescape")
                _checked(_fsconfig(context, _FSCONFIG_SET_STRING, name.encode(), text, 0), f"{kind} {name}={value}")
        _checked(_fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0), kind)
        return _checked(_fsmount(context, _CLOEXEC, attributes), kind)
    finally:
        os.close(context)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount to the file or directory that `target_fd` is."""
    _checked(_move_mount(mount_fd, b"", target_fd, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH))


def mount_setattr(
    mount_fd: int, set_: int, clear: int = 0, *, propagation: int = 0, recursive: bool = False, user_ns: int = 0
) -> None:
    """Set and clear MOUNT_ATTR_… on a mount, or on all mounts of its tree (Linux 5.12).

    `user_ns` is the namespace whose map MOUNT_ATTR_IDMAP takes.
    """
    attributes = struct.pack("4Q", set_, clear, propagation, user_ns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _checked(_mount_setattr(mount_fd, b"", flags, attributes, len(attributes)))


def openat2(directory_fd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): open `path` with RESOLVE_… rules, close-on-exec. EAGAIN (a racing rename) is tried again."""
    how = struct.pack("3Q", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(128):
        fd: int = _openat2(directory_fd, os.fsencode(path), how, len(how))
        if fd >= 0 or ctypes.get_errno() != 11:
            return _checked(fd, path)
    return _checked(fd, path)
