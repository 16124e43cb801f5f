"""What a user can ask of registries: pull, push, log in and out, look around. `engine.registry`."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from nbcontain.errors import (
    ImageNotFound,
    ManifestUnknown,
    NoSuchPlatform,
    RegistryError,
    Unauthorized,
    Unreachable,
    UsageError,
)
from nbcontain.events import Emit, Event, Notice, scope
from nbcontain.oci import platforms
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import Descriptor, Image, Platform
from nbcontain.oci.indexes import ImageIndex
from nbcontain.oci.reference import Reference
from nbcontain.registry.client import Patience, RegistryClient
from nbcontain.registry.configuration import Configuration, Endpoint
from nbcontain.registry.credentials import Credentials, Keychain
from nbcontain.registry.policies import policy_of
from nbcontain.registry.pull import Kept, Pull
from nbcontain.registry.push import Push
from nbcontain.registry.wire import Wire
from nbcontain.store.conversion import converted, has_plain_layers, layer_step
from nbcontain.store.gc import sweep
from nbcontain.store.layer_forms import GZIP
from nbcontain.store.stacks import Stacks
from nbcontain.task import Task
from nbcontain.values import dataclass, field, replace

if TYPE_CHECKING:
    from nbcontain.oci.attestations import Attested

T = TypeVar("T")
M = TypeVar("M", Reference, str)
_MEND = "mend it, or move it away and log in again"


class Wanted(Protocol):
    """What `run` says of its image: runtime's RunOptions."""

    @property
    def image(self) -> str: ...
    @property
    def pull(self) -> str: ...
    @property
    def platform(self) -> str: ...


@dataclass
class Registries:
    """The registries that this user can reach, and the store that their images come into."""

    stacks: Callable[[], Stacks]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    patience: Patience = Patience()
    settled: Callable[[], object] = lambda: None
    """Called when something of the store may not be needed any more."""

    @cached_property
    def configuration(self) -> Configuration:
        return Configuration.load(self.environ)

    @property
    def keychain(self) -> Keychain:
        return Keychain.of(self.environ)

    # --- pull ---

    def pull(self, name: str, *, platform: str = "", all_tags: bool = False) -> Task[tuple[Image, ...]]:
        """Fetch an image, or all of a repository. The task gives the images; it raises RegistryError."""
        meant = [Reference.parse(each).pinned for each in self.configuration.podman.meant(name)]
        reference = meant[0]
        wanted = platforms.parse(platform) if platform else Platform.here()
        if all_tags and (reference.digest or ":" in name.rpartition("/")[2]):
            raise UsageError(f"{name}: all tags of a repository, or one", hint="--all-tags with a name without a tag")

        def body(emit: Emit, wire: Wire) -> tuple[Image, ...]:
            if not all_tags:
                fits = bool(platform)
                return (self._first(meant, lambda each: self.fetch(each, wanted, emit, wire=wire, must_fit=fits)),)
            tags = self._ask(reference, wire, lambda client: client.tags(reference.repository))
            return tuple(self.fetch(replace(reference, tag=tag), wanted, emit, wire=wire) for tag in tags)

        return self._task(f"pull {reference.familiar}", body)

    def ensure(
        self, reference: Reference, policy: str, emit: Emit, parent: str | None = None,
        platform: Platform | None = None, *, must_fit: bool = False,
    ) -> Image:  # fmt: skip
        """The image of that name by a pull policy: from the store, or from its registry. Raises ImageNotFound.

        `emit` strikes if nobody wants it any more. Without a platform any image of that name will do, and this
        machine's is fetched; with one, the name stays what it is here, if that is another platform's.
        """
        policy = policy_of(policy, self.environ)
        reference, store = reference.pinned, self.stacks().store
        try:
            here: Image | None = store.images.get(reference, platform)
        except ImageNotFound as error:
            if policy == "never":
                raise
            here, absent = None, error
        if here is not None and policy in ("missing", "never"):
            return here
        try:
            kept: Kept = "named" if platform is None else "beside"
            return self.fetch(reference, platform or Platform.here(), emit, parent, kept=kept, must_fit=must_fit)
        except (ManifestUnknown, Unreachable) as error:
            if here is not None and policy == "newer":
                emit(Notice(parent or "pull", f"{error.message}: the image that is here is taken"))
                return here
            if here is not None:
                raise
            raise ImageNotFound(
                f"no image {reference.familiar!r}{f' for {platform}' if platform else ''} here,"
                f" and none from {reference.registry}",
                why=f"{error.message}{f' ({error.why})' if error.why else ''}", hint=absent.hint or error.hint,
            ) from error  # fmt: skip

    def to_run(self, options: Wanted, emit: Emit) -> Image:
        """The image that `run` means, by name, id or digest; what is not here is pulled, as the policy says."""
        name, policy = options.image, policy_of(options.pull, self.environ)
        images = self.stacks().store.images
        meant = self.configuration.podman.meant(name)
        if options.platform:
            wanted = platforms.parse(options.platform)
            return self._first(meant, lambda each: self._to_run_for(each, policy, wanted, emit))
        if policy in ("missing", "never"):
            for each in meant:
                with suppress(ImageNotFound):
                    return images.find(each)
        if policy == "never":
            return images.find(name)
        return self._first(meant, lambda each: self.ensure(Reference.parse(each), policy, emit))

    def _first(self, meant: Sequence[M], fetch: Callable[[M], Image]) -> Image:
        """What the first of these names gives that gives anything; of an only one, its own error."""
        refused: list[RegistryError | ImageNotFound] = []
        for each in meant:
            try:
                return fetch(each)
            except (ManifestUnknown, Unauthorized, Unreachable, ImageNotFound) as error:
                refused.append(error)
        if len(refused) == 1:
            raise refused[0]
        raise ImageNotFound(
            f"none of the registries of registries.conf has it: {', '.join(map(str, meant))}",
            why="; ".join(error.message for error in refused),
        ) from refused[-1]

    def _to_run_for(self, name: str, policy: str, platform: Platform, emit: Emit) -> Image:
        """The same for a platform that was asked for; an id names one image, whatever that is for."""
        with suppress(ImageNotFound, NoSuchPlatform):
            found = self.stacks().store.images.find(name)
            if policy in ("never", "missing") and platforms.normal(found.config.platform) == platform:
                return found
        return self.ensure(Reference.parse(name), policy, emit, platform=platform, must_fit=True)

    def fetch(
        self, reference: Reference, platform: Platform, emit: Emit, parent: str | None = None,
        wire: Wire | None = None, *, kept: Kept = "named", must_fit: bool = False,
    ) -> Image:  # fmt: skip
        """Pull, now and on this thread. What would be kept beside a name that is not here gets that name."""
        task = f"pull {reference.familiar}"
        stacks = self.stacks()
        if kept == "beside":
            try:
                stacks.store.images.get(reference)
            except NoSuchPlatform:
                pass
            except ImageNotFound:
                kept = "named"
        with self._wire(wire) as wire, scope(_struck(emit, wire), task, task, parent), stacks.store.shared():
            self._tell_troubles(task, emit, wire)
            image, named = self._ask(
                reference, wire,
                lambda client: Pull(
                    client, stacks, _struck(emit, client.wire), task, kept, must_fit=must_fit
                ).image(reference, platform),
            )  # fmt: skip
            emit(Notice(task, f"digest: {named.digest}"))
            sweep(stacks.store)
        stacks.store.tell("image", "pull", reference.familiar, {"name": reference.familiar_repository})
        return image

    # --- push ---

    def push(
        self, name: str, *, all_tags: bool = False, to: str = "", preserve_digests: bool = False
    ) -> Task[tuple[tuple[Reference, Digest], ...]]:
        """Send an image or a manifest list under its name, or all tags of a repository; or under the name `to`.

        An image's layers that are plain tars, as docker's archives have them, are compressed before, and so it has
        another digest from then on, here as there; with `preserve_digests` they are sent as they are, as are those of
        a list, and of a name with a digest. The task gives names and digests.
        """
        reference = Reference.parse(name)
        images = self.stacks().store.images
        chosen: dict[Reference, Image | ImageIndex]
        if all_tags:
            here: dict[Reference, Image | ImageIndex] = {each: image for each, image in images.list() if each}
            here |= images.indexes()
            chosen = {each: found for each, found in here.items() if each.tag and each.is_beside(reference)}
            if not chosen:
                raise ImageNotFound(f"no image {reference.familiar_repository!r} here")
        else:
            try:
                chosen = {Reference.new(to) if to else reference: images.index(reference) or images.get(reference)}
            except ImageNotFound as error:
                if alike := _alike(reference, [each for each, _ in images.list() if each]):
                    error.hint = f"%image tag {alike.familiar} {reference.familiar}"
                raise
        target = next(iter(chosen))

        def body(emit: Emit, wire: Wire) -> tuple[tuple[Reference, Digest], ...]:
            packs = not preserve_digests and reference.digest is None
            return self._sent(target, tuple(chosen.items()), emit, wire, packs=packs)

        return self._task(f"push {target.familiar}", body)

    def send(
        self, name: Reference, image: Image | ImageIndex, emit: Emit, parent: str | None = None,
        attested: Attested | None = None,
    ) -> Digest:  # fmt: skip
        """Push, now and on this thread; with the statements that an index leads to. Gives what is there then."""
        with self._wire(None) as wire:
            return self._sent(name, [(name, image)], emit, wire, parent, attested)[0][1]

    def _sent(
        self, reference: Reference, images: Sequence[tuple[Reference, Image | ImageIndex]], emit: Emit, wire: Wire,
        parent: str | None = None, attested: Attested | None = None, *, packs: bool = False,
    ) -> tuple[tuple[Reference, Digest], ...]:  # fmt: skip
        store = self.stacks().store
        [endpoint] = self.configuration.places(reference, writing=True)
        client = self._client(endpoint, reference, wire)
        task = f"push {reference.familiar}"
        sent = []
        ready: dict[Digest, Image | ImageIndex] = {}
        try:
            with scope(emit, task, task, parent), store.shared():
                self._tell_troubles(task, emit, wire)
                for _, image in images:
                    if image.digest not in ready:
                        packed = self._packed(image, reference, client, _struck(emit, wire), task) if packs else image
                        ready[image.digest] = packed
                for each, given in images:
                    image = ready[given.digest]
                    push = Push(client, store, _struck(emit, wire), task)
                    digest = push.named(image, each, partial(self._sources, each), attested)
                    raw = image.raw_manifest if isinstance(image, Image) else image.raw
                    emit(Notice(task, f"{each.tag or '@'}: digest: {digest} size: {len(raw)}"))
                    sent.append((each, digest))
        finally:
            # Also where nothing could be sent: what it was is not needed any more.
            if any(image.digest != digest for digest, image in ready.items()):
                self.settled()
        for each, _ in sent:
            store.tell("image", "push", each.familiar, {"name": each.familiar_repository})
        return tuple(sent)

    def _packed(
        self, image: Image | ImageIndex, reference: Reference, client: RegistryClient, emit: Emit, task: str
    ) -> Image | ImageIndex:
        """An image without plain layers, which has the names of the one that it was. An index stays as it is."""
        if isinstance(image, ImageIndex) or not has_plain_layers(image):
            return image
        # A registry that is not there, or lets nobody in, changes nothing here.
        client.has_blob(reference.repository, image.manifest.config)
        images, blobs = self.stacks().store.images, self.stacks().store.blobs
        made = converted(image, GZIP, blobs, partial(layer_step, emit, task, doing="compress"), plain_only=True)
        # A name with a digest stands for that manifest and no other.
        own = [each for each in images.names(image.digest) if each.digest is None]
        images.prepare(made)
        images.enter([(made, own)], instead_of=image.digest)
        emit(Notice(task, "layers that came as plain tars are compressed from now on, here as there",
                    "--preserve-digests sends them as they are"))  # fmt: skip
        return made

    def _sources(self, target: Reference, digest: Digest) -> Sequence[str]:
        """Repositories of the same registry that have this blob, as far as is known here."""
        found = [
            each.repository
            for each, image in self.stacks().store.images.list()
            if each and each.registry == target.registry and each.repository != target.repository
            and any(layer.digest == digest for layer in image.manifest.layers)
        ]  # fmt: skip
        return tuple(dict.fromkeys(found))[:1]

    # --- who one is ---

    def login(self, registry: str, username: str, password: str) -> str:
        """Try these credentials, and keep them if the registry takes them. Says where. Raises Unauthorized."""
        reference = _registry(registry)
        known = Credentials(username, password)
        with self._wire(None) as wire:
            [endpoint] = self.configuration.endpoints(reference.registry, writing=True)
            RegistryClient(endpoint, wire, lambda: known, self.patience).ping()
        return str(self.keychain.store(reference.registry, known))

    def logout(self, registry: str) -> bool:
        """Forget the credentials for a registry; False if there were none."""
        return self.keychain.erase(_registry(registry).registry)

    # --- looking around ---

    def tags(self, name: str, limit: int = 0, last: str = "") -> list[str]:
        """The tags of a repository."""
        reference = Reference.parse(name)
        with self._wire(None) as wire:
            return self._ask(reference, wire, lambda client: client.tags(reference.repository, limit, last))

    def manifest(self, name: str) -> bytes:
        """What a name points at in its registry, as it is there."""
        return self.described(name)[1]

    def described(self, name: str) -> tuple[Descriptor, bytes]:
        """The same, with its media type and digest."""
        reference = Reference.parse(name)
        which = str(reference.digest or reference.tag)
        with self._wire(None) as wire:
            return self._ask(reference, wire, lambda client: client.manifest(reference.repository, which))

    def referrers(self, name: str, artifact_type: str = "") -> list[dict[str, Any]]:
        """What refers to an image: signatures, bills of materials."""
        reference = Reference.parse(name)

        def ask(client: RegistryClient) -> list[dict[str, Any]]:
            digest = reference.digest or client.manifest(reference.repository, reference.tag or "latest")[0].digest
            return client.referrers(reference.repository, digest, artifact_type)

        with self._wire(None) as wire:
            return self._ask(reference, wire, ask)

    @contextmanager
    def client(self, reference: Reference, *, writing: bool = False) -> Iterator[RegistryClient]:
        """A connection to the registry of this name itself, for what is no image."""
        with self._wire(None) as wire:
            yield self._client(self.configuration.endpoints(reference.registry, writing=writing)[-1], reference, wire)

    # --- in parts ---

    def _ask(self, reference: Reference, wire: Wire, question: Callable[[RegistryClient], T]) -> T:
        """The answer of the first that has one: mirrors, then the registry itself."""
        *mirrors, own = self.configuration.places(reference)
        for mirror in mirrors:
            try:
                return question(self._client(mirror, reference, wire))
            except (RegistryError, OSError, http.client.HTTPException):
                wire.strike()
        client = self._client(own, reference, wire)
        try:
            return question(client)
        except Unauthorized as error:
            if troubles := self.keychain.troubles():
                error.hint = f"{troubles[0]}; {_MEND}"
            raise
        except (OSError, http.client.HTTPException) as error:
            wire.strike()
            raise client.unreachable(error) from error

    def _tell_troubles(self, task: str, emit: Emit, wire: Wire) -> None:
        """Once for all that goes over this wire: credentials that cannot be read are as if they were not there."""
        if not wire.is_warned:
            wire.is_warned = True
            for trouble in self.keychain.troubles():
                emit(Notice(task, trouble, f"{_MEND}; until then registries are asked without it"))

    def _client(self, endpoint: Endpoint, reference: Reference, wire: Wire) -> RegistryClient:
        host = endpoint.host if endpoint.mirror_of else reference.registry
        found: list[Credentials | None] = []

        def credentials() -> Credentials | None:
            if not found:
                found.append(self.keychain.find(host, endpoint.repository or reference.repository))
            return found[0]

        return RegistryClient(endpoint, wire, credentials, self.patience)

    @contextmanager
    def _wire(self, given: Wire | None) -> Iterator[Wire]:
        if given is not None:
            yield given
            return
        wire = Wire(self.configuration.tls, self.environ)
        try:
            yield wire
        finally:
            wire.close()

    def _task(self, name: str, body: Callable[[Emit, Wire], T]) -> Task[T]:
        wire = Wire(self.configuration.tls, self.environ)

        def run(emit: Emit) -> T:
            try:
                return body(emit, wire)
            finally:
                wire.close()

        task = Task(name, run)
        task.on_cancel(wire.shut)
        return task


def _struck(emit: Emit, wire: Wire) -> Emit:
    """An emit whose striking ends the connections of all threads, not only the one that it strikes."""

    def told(event: Event) -> None:
        try:
            emit(event)
        except BaseException:
            wire.shut()
            raise

    return told


def _registry(text: str) -> Reference:
    text = text.removeprefix("https://").removeprefix("http://").strip("/") or "docker.io"
    if text == "docker.io" or "index.docker.io" in text:
        return Reference.parse("docker.io/library/x")
    return replace(Reference.parse("localhost/x"), registry=text.partition("/")[0])


def _alike(wanted: Reference, known: Sequence[Reference]) -> Reference | None:
    """The image that is meant by whoever pushes a name that it does not have yet: it is called so, but nowhere."""
    name = wanted.repository.rpartition("/")[2]
    found = [each for each in known if each.tag and each.familiar_repository == name and not each.is_beside(wanted)]
    return min(found, key=lambda each: (each.tag != wanted.tag, each.tag != "latest"), default=None)
