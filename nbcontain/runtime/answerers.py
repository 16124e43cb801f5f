"""Having a container's calls answered: forking who does it, and introducing a program to them.

The answerer is a child of the supervisor; where it stands, and what it may do there, is `answering`'s to know.
"""

from __future__ import annotations

import os
from functools import partial

from nbcontain.errors import SetupFailed
from nbcontain.linux import confine
from nbcontain.oci.spec import Spec, User
from nbcontain.runtime import stage
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.messages import Channel, error_of
from nbcontain.runtime.namespaces import FLAGS
from nbcontain.runtime.rungs import FURNITURE, named
from nbcontain.store import files
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Answers:
    """What a program is to know of it."""

    words: str = ""
    """Which calls, as `answered_calls` names them; "" for none."""
    seccomp: bytes = b""
    fd: int = -1
    """Where to introduce itself; -1 where its calls are only pretended."""

    @property
    def stand_in(self) -> bool:
        """Whether users are only kept in mind: then all are root for the kernel."""
        return "ids" in self.words.split() or self.words == "blind"

    @property
    def kept(self) -> tuple[int, ...]:
        """The descriptor, if there is one."""
        return (self.fd,) if self.fd >= 0 else ()

    def introduce(self, user: User) -> None:
        """Init, and an exec's process: have this process's calls answered from here on, as those of `user`."""
        if self.fd < 0:
            confine.install(self.seccomp)
            return
        channel = Channel.of(self.fd)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = confine.install(self.seccomp)
        groups = list(dict.fromkeys((user.gid, *user.additional_gids)))
        message = {"uid": user.uid, "gid": user.gid, "groups": groups, "words": self.words}
        channel.send(message, [listener, root])
        os.close(listener)
        os.close(root)
        answer, _ = channel.receive()
        channel.close()
        if answer is None:
            raise SetupFailed("the process that answers for the kernel has ended")
        if "error" in answer:
            raise error_of(answer)


def fork_for(bundle: Bundle, spec: Spec, pidfd: int) -> Channel | None:
    """Supervisor: an answerer for a program in the container that `pidfd` is; None where none is needed.

    Gives the channel on which the program is to introduce itself.
    """
    if bundle.info.answers in ("", "blind"):
        return None
    # Only now: most containers have no use for it. (Where they have, the zygote has imported it.)
    from nbcontain.runtime import answering
    from nbcontain.store.snapshots import OWNERS, ledger_in

    flags = sum(FLAGS[name] for name in ("user", "mount") if name in spec.linux.namespaces)
    opened: dict[str, int] = {}
    ledger, lines = -1, b""
    try:
        if not named(bundle.info.rung).mounts:
            for mount in spec.mounts:
                if mount.destination in FURNITURE:
                    opened[mount.destination] = os.open(mount.source, os.O_RDONLY | os.O_CLOEXEC)
        directory = bundle.active_directory()
        if directory is not None and "ids" in bundle.info.answers.split():
            ledger, lines = files.open_to_append(directory / OWNERS), ledger_in(directory)
        body = partial(answering.main, pidfd=pidfd, namespaces=flags, opened=opened, ledger_fd=ledger, lines=lines)
        return stage.beside(body)
    finally:
        for fd in (ledger, *opened.values()):
            if fd >= 0:
                os.close(fd)
