"""What FROM means: images of registries, and the one that is made of this machine's own programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbcontain.build.importer import host_image
from nbcontain.build.solver import BUILD
from nbcontain.errors import ImageNotFound
from nbcontain.events import Emit, scope
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.task import Task

if TYPE_CHECKING:
    from nbcontain.engine import Engine

HOST_IMAGE = Reference.parse("host")
_TASK = "host-image"


class Bases:
    """The base images of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def image(
        self, reference: Reference, emit: Emit, policy: str = "missing", platform: Platform | None = None
    ) -> Image:
        """The image of a name, asked of its registry as the policy says; `host` is made when it is first asked for.

        Without a platform any will do.
        """
        if reference != HOST_IMAGE:
            return self._engine.registry.ensure(reference, policy, emit, BUILD, platform)
        try:
            return self._engine.store.images.get(reference)
        except ImageNotFound:
            return self._host(emit, reference, ())

    def from_host(self, tag: str, programs: Sequence[str]) -> Task[Image]:
        """Make an image out of this machine's own shell, coreutils and Python, and of `programs`."""
        reference = Reference.parse(tag)

        def body(emit: Emit) -> Image:
            name = f"{reference.familiar} from this machine's programs"
            with scope(emit, BUILD, name), self._engine.store.shared():
                return self._host(emit, reference, programs)

        return Task(f"from-host {tag}", body)

    def _host(self, emit: Emit, reference: Reference, programs: Sequence[str]) -> Image:
        with scope(emit, _TASK, "shell, coreutils, Python" + "".join(f", {each}" for each in programs), BUILD):
            image = host_image(programs, self._engine.workshop(emit), _TASK)
        self._engine.store.images.put(image, reference)
        return image
