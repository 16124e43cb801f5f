"""Having a container's calls answered: forking who does it, and introducing a program to them.

The answerer is a child of the supervisor; where it stands, and what it may do there, is `answering`'s to know.
"""

from __future__ import annotations

import os
from functools import partial
from io import FileIO
from pathlib import Path

from nbcontain.errors import SetupFailed
from nbcontain.linux import confine, routes
from nbcontain.oci.spec import Spec, User
from nbcontain.runtime import stage
from nbcontain.runtime.annotations import WAY_OUT
from nbcontain.runtime.messages import Channel, error_of
from nbcontain.runtime.namespaces import flags_of
from nbcontain.runtime.rungs import ALONE, FURNITURE, TRANSLATOR, named
from nbcontain.store import files
from nbcontain.store.makers import Notes
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable

    from nbcontain.runtime.bundle import Bundle

_LINKS = {"user": "user", "mount": "mnt"}
"""The namespaces that the answerer enters, in this order, with their names in /proc/PID/ns."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a program is to know of it."""

    words: str = ""
    """Which calls, as `answered_calls` names them; "" for none."""
    seccomp: bytes = b""
    fd: int = -1
    """Where to introduce itself; where calls are only pretended, the file that takes who it is, -1 for none."""
    spaces: int = -1
    """Init's own /proc/self/ns, opened while the host's /proc can be seen; -1 for an exec's process."""
    names: tuple[str, ...] = ()
    """What to hand over of it, in the order in which it is entered."""
    is_first: bool = False
    """Whether it is the container's first program."""

    @property
    def stand_in(self) -> bool:
        """Whether users are only kept in mind: then all are root for the kernel."""
        return "ids" in self.words.split() or self.words == "blind"

    @property
    def kept(self) -> tuple[int, ...]:
        """The descriptors, if there are any."""
        return tuple(fd for fd in (self.fd, self.spaces) if fd >= 0)

    @classmethod
    def of_init(cls, bundle: Bundle, words: str, spec: Spec, fd: int) -> Answers:
        """Init, before it leaves the host's root: those of its program; `words` and `fd` as above."""
        if not words:
            return cls()
        if words in ALONE:
            return cls(words, bundle.answers(), fd, is_first=True)
        spaces = os.open("/proc/self/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        names = tuple(link for name, link in _LINKS.items() if name in spec.linux.namespaces)
        return cls(words, bundle.answers(), fd, spaces, names, is_first=True)

    def introduce(self, user: User) -> None:
        """Init, and an exec's process: have this process's calls answered from here on, as those of `user`."""
        if self.words in ALONE:
            if self.fd >= 0:
                Notes.to(self.fd, (user.uid, user.gid), is_first=self.is_first)
                os.close(self.fd)
            confine.install(self.seccomp)
            return
        channel = Channel.of(self.fd)
        # All that is opened is opened now: from the filter on nobody answers until the message has arrived.
        # Where paths are translated, one stands in the container's root, and that is all.
        top = "." if "translated" in self.words.split() else "/"
        root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Whoever was born into a namespace that others are in may not be looked at by anybody, nor followed by its
        # pidfd, until it has executed its program: so it says itself where it is.
        spaces = [os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.spaces) for name in self.names]
        # Of the network that it is in, which it may be the last to be.
        route = [routes.asking().detach()] if "net" in self.words.split() else []
        listener = confine.install(self.seccomp)
        groups = list(dict.fromkeys((user.gid, *user.additional_gids)))
        message = {"uid": user.uid, "gid": user.gid, "groups": groups, "words": self.words}
        channel.send(message, [listener, root, *spaces, *route])
        for fd in (listener, root, *spaces, *route, *self.kept[1:]):
            os.close(fd)
        answer, _ = channel.receive()
        channel.close()
        if answer is None:
            raise SetupFailed("the process that answers for the kernel has ended")
        if "error" in answer:
            raise error_of(answer)


def fork_for(
    bundle: Bundle, spec: Spec, pidfd: int = -1, tell: Callable[[int], object] = lambda pid: None
) -> Channel | FileIO | None:
    """Supervisor: an answerer for a program in the container that `pidfd` is; None where none is needed.

    Without one it is for the container's first program, which says where it is. `tell` hears its pid: it ends when
    nobody is left whose calls it could answer. Gives the channel on which the program is to introduce itself; where its
    calls are only pretended, the file that it is to write who it is to.
    """
    words = bundle.info.answers.split()
    if not words:
        return None
    directory = bundle.active_directory if {"ids", "blind"} & {*words} else None
    # Only now: most containers have no use for it. (Where they have, the zygote has imported it.)
    from nbcontain.runtime import answering
    from nbcontain.store.snapshots import MAKERS, OWNERS, ledger_in

    if words[0] in ALONE:
        return None if directory is None else FileIO(files.open_to_append(directory / MAKERS), "a")
    flags = flags_of(name for name in _LINKS if name in spec.linux.namespaces)
    opened: dict[str, int] = {}
    ledger, lines, makers, directory_fd, name = -1, b"", -1, -1, ""
    try:
        if "net" in words:
            record = Path(spec.annotations[WAY_OUT])
            directory_fd, name = os.open(record.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), record.name
        if not named(bundle.info.rung).mounts:
            for mount in spec.mounts:
                if mount.destination in FURNITURE:
                    opened[mount.destination] = os.open(mount.source, os.O_RDONLY | os.O_CLOEXEC)
        if directory is not None:
            ledger, lines = files.open_to_append(directory / OWNERS), ledger_in(directory)
            makers = files.open_to_append(directory / MAKERS)
        body = partial(
            answering.main, pidfd=pidfd, namespaces=flags, opened=opened, ledger_fd=ledger, lines=lines,
            makers_fd=makers, record=(directory_fd, name), library=spec.annotations.get(TRANSLATOR, ""),
        )  # fmt: skip
        answerer = stage.attended(body)
        tell(answerer.pid)
        return answerer.channel
    finally:
        for fd in (ledger, makers, directory_fd, *opened.values()):
            if fd >= 0:
                os.close(fd)
