"""How Jupyter starts a kernel in an image: a kernel provisioner of jupyter_client's. Runs in Jupyter's own process.

What takes time is done on threads: the loop that all kernels of a server share goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import List, Unicode

from nbcontain.engine import Engine
from nbcontain.kernel_places import CONNECTION, KernelPlace
from nbcontain.kernels import RunningKernel, kernel_options

_LOOK_S = 0.05


class ContainerProvisioner(KernelProvisionerBase):
    """Starts the kernel of an image in a container, and is talked to through sockets in a directory of its own.

    Restarted, a kernel gets a new container. However Jupyter ends, the container ends with it and is removed.
    """

    image = Unicode(help="the image's name")
    options = List(Unicode(), help="how its container is run, in the words of nbcontain run")
    argv = List(Unicode(), help="how the kernel is executed in the image")
    root = Unicode(help="the store that has the image")

    _engine: Engine | None = None
    _place: KernelPlace | None = None
    _running: RunningKernel | None = None
    _told = False

    @property
    def engine(self) -> Engine:
        """On the store of whoever added the kernel."""
        if self._engine is None:
            self._engine = Engine(self.root or None)
        return self._engine

    @property
    def has_process(self) -> bool:
        return self._running is not None

    # --- its start ---

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Make the place for the sockets, and both connection files: each sees the same place at another path."""
        manager = self.parent
        if manager is None:
            raise RuntimeError("a kernel in a container needs a kernel manager")
        engine = self.engine
        if self._place is None:
            self._place = await asyncio.to_thread(engine.kernels.place)
        else:
            await asyncio.to_thread(self._place.clear)
        kwargs.pop("transport_encryption", None)  # nobody else comes as far as the sockets
        kwargs.pop("extra_arguments", None)
        manager.transport, manager.ip = "ipc", self._place.ip
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        self._place.write_connection(self.connection_info)
        command = [each.replace("{connection_file}", CONNECTION) for each in self.argv]
        return await super().pre_launch(cmd=command, **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Run it. Raises what hindered it, in words for people."""
        place, cwd = self._place, Path(kwargs.get("cwd") or Path.cwd())
        assert place is not None
        # Nothing of Jupyter's own environment goes in but what the kernelspec names.
        named = [f"{name}={kwargs['env'][name]}" for name in self.kernel_spec.env if name in kwargs.get("env", {})]

        def start() -> RunningKernel:
            options = kernel_options([*self.options, *(f"--env={each}" for each in named)])
            name = Path(self.kernel_spec.resource_dir).name
            return self.engine.kernels.start(self.image, cmd, options, place, name=name, cwd=cwd)

        self._told = False
        self._running = await asyncio.to_thread(start)
        return self.connection_info

    # --- its life ---

    async def poll(self) -> int | None:
        if self._running is None:
            return 0
        code = self._running.poll()
        if code and not self._told:
            self._told = True
            self.log.warning("kernel in %s: %s", self.image, self._running.last_words())
        return code

    async def wait(self) -> int | None:
        while (code := await self.poll()) is None:
            await asyncio.sleep(_LOOK_S)
        self._running = None
        return code

    async def send_signal(self, signum: int) -> None:
        if (running := self._running) is not None:
            await asyncio.to_thread(running.signal, signum)

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        """Away with the container, and unless another follows with everything else."""
        running, self._running = self._running, None
        if running is not None:
            await asyncio.to_thread(running.end)
        if restart:
            return
        place, self._place = self._place, None
        engine, self._engine = self._engine, None
        if place is not None:
            await asyncio.to_thread(place.remove)
        if engine is not None:
            await asyncio.to_thread(engine.close)

    # --- what is kept of it ---

    async def get_provisioner_info(self) -> dict[str, Any]:
        info = await super().get_provisioner_info()
        container = self._running.container.id if self._running is not None else ""
        return {**info, "container": container}
