"""What init does of a container while its bundle is still being written: all that needs no files, and no group, of it.

Run by init, which its supervisor has told what is coming. Nobody waits meanwhile; whoever makes the container then
finds its namespaces made, and its own file systems ready to be put where they belong.
"""

from __future__ import annotations

import os
from contextlib import suppress

from nbcontain.linux import mount_options, syscalls
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Spec
from nbcontain.runtime import devices, isolation, namespaces, roots
from nbcontain.runtime.annotations import PART
from nbcontain.runtime.messages import Message
from nbcontain.runtime.rungs import Rung

_OWN = frozenset({"proc", "tmpfs", "devpts", "mqueue", "sysfs"})
"""File systems that come from nowhere."""


class Beforehand:
    """What has been done already."""

    def __init__(self) -> None:
        self.spec: Spec | None = None
        self.left = 0
        """CLONE_NEW… of the namespaces that init has left."""
        self.mounts: dict[int, int] = {}
        """Descriptors of mounts that exist already, by their places in the spec."""
        self.has_devices = False
        """The usual devices are in the one for /dev."""
        self._error: BaseException | None = None

    def begin(self, message: Message, rung: Rung) -> None:
        """Do it. What goes wrong is raised later, by `settle`, where somebody hears of it."""
        try:
            spec = spec_codec.spec_from_text(message["spec"])
            if rung.mounts:
                # Not that of its control group, to which it may not belong yet.
                self.left = namespaces.late(spec.linux) & ~syscalls.CLONE_NEWCGROUP
                roots.leave(spec, self.left)
                self._mount(spec)
            self.spec = spec
        except BaseException as error:  # noqa: BLE001 - raised by `settle`
            self._error = error

    def settle(self) -> None:
        """Raises what hindered it."""
        if self._error is not None:
            raise self._error

    def _mount(self, spec: Spec) -> None:
        for number, mount in enumerate(isolation.fitted(spec)):
            options = mount_options.parse(mount.options, PART)
            if mount.type not in _OWN or options.is_bind:
                continue
            # What cannot be made now is tried again, and told of, in its turn.
            with suppress(OSError):
                self.mounts[number] = made = isolation.new(mount, options)
                if mount.destination == "/dev" and mount.type == "tmpfs" and "nodev" not in mount.options:
                    dev = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=made)
                    self.has_devices = devices.make_nodes(dev)
