"""The words of a mount's options, as fstab and the runtime specification have them. Pure.

config.md#linux-mount-options.

Some are attributes of this one mount, some of every mount below it (those that begin with r), some say who else sees
mounts that are made in it, and the rest is for the file system.
"""

from __future__ import annotations

from collections.abc import Iterable

from nbcontain.linux import syscalls
from nbcontain.values import dataclass

_ATTRIBUTES = {
    "ro": (syscalls.MOUNT_ATTR_RDONLY, True),
    "rw": (syscalls.MOUNT_ATTR_RDONLY, False),
    "nosuid": (syscalls.MOUNT_ATTR_NOSUID, True),
    "suid": (syscalls.MOUNT_ATTR_NOSUID, False),
    "nodev": (syscalls.MOUNT_ATTR_NODEV, True),
    "dev": (syscalls.MOUNT_ATTR_NODEV, False),
    "noexec": (syscalls.MOUNT_ATTR_NOEXEC, True),
    "exec": (syscalls.MOUNT_ATTR_NOEXEC, False),
    "nodiratime": (syscalls.MOUNT_ATTR_NODIRATIME, True),
    "diratime": (syscalls.MOUNT_ATTR_NODIRATIME, False),
    "nosymfollow": (syscalls.MOUNT_ATTR_NOSYMFOLLOW, True),
    "symfollow": (syscalls.MOUNT_ATTR_NOSYMFOLLOW, False),
}
_TIMES = {
    "relatime": 0,
    "norelatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "atime": 0,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "nostrictatime": 0,
}
"""One of three: what says the time of a file's last reading."""
_SHARING = {
    "shared": syscalls.MS_SHARED,
    "slave": syscalls.MS_SLAVE,
    "private": syscalls.MS_PRIVATE,
    "unbindable": syscalls.MS_UNBINDABLE,
}
_PROPAGATION = _SHARING | {f"r{name}": bits | syscalls.MS_REC for name, bits in _SHARING.items()}
_WORDS = frozenset({"bind", "rbind", "tmpcopyup", "idmap", "ridmap", "copy-symlink", "src-nofollow", "dest-nofollow"})
_IGNORED = frozenset(
    {"defaults", "silent", "loud", "iversion", "noiversion", "remount", "acl", "user", "nofail", "_netdev"}
)

KNOWN = frozenset(
    {*_ATTRIBUTES, *_TIMES, *_PROPAGATION, *_WORDS, "defaults", *(f"r{name}" for name in (*_ATTRIBUTES, *_TIMES))}
    | {"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"}
)
"""All that mean something by themselves, whatever the file system; those of the last line are its own."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the options of one mount mean, in the order they were given."""

    set: int = 0
    """MOUNT_ATTR_… of the mount itself."""
    clear: int = 0
    deep_set: int = 0
    """Those of all mounts of its tree."""
    deep_clear: int = 0
    propagation: int = 0
    """MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, with MS_REC for the whole tree; 0 as it comes."""
    words: frozenset[str] = frozenset()
    """bind, rbind, tmpcopyup, idmap, ridmap …"""
    data: tuple[tuple[str, str | None], ...] = ()
    """For the file system: names, and values where there is a sign between them."""

    @property
    def is_bind(self) -> bool:
        return bool(self.words & {"bind", "rbind"})

    @property
    def crosses(self) -> bool:
        """Whether mounts get through between it and where it comes from."""
        return bool(self.propagation & (syscalls.MS_SHARED | syscalls.MS_SLAVE))


def parse(options: Iterable[str], own: str = "") -> MountOptions:
    """What these words mean; those that begin with `own` are somebody else's business. Of two that differ the later."""
    flat, deep = [0, 0], [0, 0]
    propagation, words, data = 0, [], []
    for option in options:
        if option in _ATTRIBUTES:
            _turn(flat, *_ATTRIBUTES[option])
        elif option in _TIMES:
            _choose(flat, _TIMES[option])
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option in _WORDS:
            words.append(option)
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            _turn(deep, *_ATTRIBUTES[option[1:]])
        elif option[:1] == "r" and option[1:] in _TIMES:
            _choose(deep, _TIMES[option[1:]])
        elif option and option not in _IGNORED and not (own and option.startswith(own)):
            name, sign, value = option.partition("=")
            data.append((name, value if sign else None))
    # What a bind is not told keeps the flags of its source: "rw" takes back an "ro" before it, and nothing else.
    clear = flat[1] & syscalls.MOUNT_ATTR_ATIME
    return MountOptions(flat[0], clear, deep[0], deep[1], propagation, frozenset(words), tuple(data))


def _turn(bits: list[int], attribute: int, on: bool) -> None:
    gained, lost = (0, 1) if on else (1, 0)
    bits[gained] |= attribute
    bits[lost] &= ~attribute


def _choose(bits: list[int], time: int) -> None:
    """Of the three times this one; the kernel wants them all cleared at once (mount_setattr(2))."""
    bits[0] = bits[0] & ~syscalls.MOUNT_ATTR_ATIME | time
    bits[1] |= syscalls.MOUNT_ATTR_ATIME
