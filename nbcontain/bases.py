"""What FROM and `run` mean: images of registries, and the one that is made of this machine's own programs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from nbcontain.errors import BadDigest, BadReference, ImageNotFound, NoSuchPlatform
from nbcontain.events import BUILD, Emit, quietly, scope
from nbcontain.oci.image import Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.registry.policies import local
from nbcontain.task import Task

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.runtime.generate import RunOptions

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

        Without a platform any will do. Raises NoSuchPlatform for `host` on another machine than this.
        """
        if reference != HOST_IMAGE:
            engine, name = self._engine, reference.pinned
            here = local(lambda: engine.store.images.get(name, platform), policy, engine.environ)
            return here or engine.registry.ensure(reference, policy, emit, BUILD, platform)
        if platform is not None and platform != (own := Platform.here()):
            raise NoSuchPlatform(
                f"there is no host for {platform}",
                why=f"it is made of this machine's own programs, which are for {own}",
                hint="leave --platform away",
            )
        try:
            return self._engine.store.images.get(reference)
        except ImageNotFound:
            return self._host(emit, reference, ())

    def state(self, name: str) -> Image | None:
        """The image of NAME@step3 of a build; None for another kind of name."""
        return self._engine.builder.state(name) if "@" in name and "@sha256:" not in name else None

    def to_run(self, options: RunOptions, emit: Emit) -> Image:
        """The image that `run` means; its registry is asked if none is here, or as the policy says."""
        engine = self._engine
        if options.quiet:
            emit = quietly(emit)
        if options.image in ("host", "host:latest"):
            return self.image(HOST_IMAGE, emit)
        if (state := self.state(options.image)) is not None:
            return state
        if not options.platform:
            # What is not here under the very name may be here under another: registries.conf says.
            with suppress(ImageNotFound):
                here = local(lambda: engine.store.images.find(options.image), options.pull, engine.environ)
                if here is not None:
                    return here
        return engine.registry.to_run(options, emit)

    def from_host(self, tag: str, programs: Sequence[str], packages: Sequence[str] = ()) -> Task[Image]:
        """Make an image out of this machine's own shell, coreutils and Python, of `programs` and Python `packages`."""
        reference = Reference.new(tag)

        def body(emit: Emit) -> Image:
            name = f"{reference.familiar} from this machine's programs"
            with scope(emit, BUILD, name), self._engine.store.shared():
                return self._host(emit, reference, programs, packages)

        return Task(f"from-host {tag}", body)

    def _host(
        self, emit: Emit, reference: Reference, programs: Sequence[str], packages: Sequence[str] = ()
    ) -> Image:
        from nbcontain.build.importer import host_image

        what = ", ".join(("shell, coreutils, Python", *programs, *packages))
        with scope(emit, _TASK, what, BUILD):
            image = host_image(programs, self._engine.workshop(emit), _TASK, packages)
        self._engine.store.images.put(image, reference)
        return image

    def shown_name(self, asked: str, image: Image) -> str:
        """What an image is called, as it was asked for, as with docker; its id where that is no name of it."""
        try:
            reference = Reference.parse(asked)
        except (BadDigest, BadReference):  # an id, then
            return image.id.short
        return asked if self._engine.store.images.is_named(image.digest, reference) else image.id.short
