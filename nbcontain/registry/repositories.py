"""What our own registry keeps on the disk: blobs once, and for each repository which of them it has, by what names.

    blobs/ALGORITHM/HEX                       what was pushed, manifests too
    repositories/NAME/_blobs/ALGORITHM-HEX    empty: this repository has that blob
    repositories/NAME/_manifests/…            a manifest of it, with its media type inside
    repositories/NAME/_tags/TAG               the digest that the tag points at
    uploads/ID                                what is on its way

No part of a repository's name begins with an underscore, so these directories are nobody's name. One process writes
here at a time: whoever holds `lock`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from nbcontain.errors import BadDigest, DigestMismatch
from nbcontain.oci.digest import Digest
from nbcontain.oci.strict_json import load
from nbcontain.store import files, removal
from nbcontain.values import dataclass, field

MANIFEST_LIMIT_BYTES = 4 << 20
"""distribution-spec, pushing manifests: what a registry should take at least."""
_WAIT_S = 1.0
"""So long after a connection was cut, what of it had come may still be written."""


class Busy(Exception):
    """Another request is sending to that upload."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What is on its way into a repository. Who holds `alone` writes to its file, and nobody else."""

    repository: str
    alone: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Kept:
    """A manifest of a repository."""

    digest: Digest
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Named:
    """One tag of one repository, for a list."""

    repository: str
    tag: str
    digest: Digest
    size_bytes: int
    """What the manifest names, and itself."""


class Repositories:
    """The registry's shelves below one directory. What is asked for and is not there is None, or False."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}

    # --- blobs ---

    def blob(self, repository: str, digest: Digest) -> Path | None:
        """The file with these bytes, if this repository has them."""
        path = self._bytes(digest)
        return path if self._mark(repository, digest).exists() and path.exists() else None

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Have a blob of another repository in this one, too: no byte is sent for it."""
        with self._lock:
            if self.blob(source, digest) is None:
                return False
            self._hold(repository, digest)
            return True

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob out of a repository, and off the disk with the last that has it."""
        with self._lock:
            if not files.unlink(self._mark(repository, digest)):
                return False
            self._forget({digest})
            return True

    # --- uploads ---

    def begin(self, repository: str) -> str:
        """A new upload's id."""
        upload = os.urandom(16).hex()
        files.make_directory(self.root / "uploads", durable=False)
        files.write_new(self.root / "uploads" / upload, b"")
        self._uploads[upload] = Upload(repository)
        return upload

    def uploaded(self, repository: str, upload: str) -> int | None:
        """How many bytes of an upload are here; None if there is no such upload in this repository."""
        known = self._uploads.get(upload)
        if known is None or known.repository != repository:
            return None
        try:
            return (self.root / "uploads" / upload).stat().st_size
        except FileNotFoundError:
            # It has just become a blob, or nothing.
            return None

    @contextmanager
    def alone(self, upload: str) -> Iterator[None]:
        """For whoever adds to an upload, or finishes it: meanwhile nobody else does. Raises Busy."""
        known = self._uploads.get(upload)
        if known is None:
            # What comes now finds that out.
            yield
            return
        if not known.alone.acquire(timeout=_WAIT_S):
            raise Busy
        try:
            yield
        finally:
            known.alone.release()

    def append(self, upload: str, chunks: Iterator[bytes]) -> None:
        """Add to an upload that one has `alone`."""
        fd = files.open_to_append(self.root / "uploads" / upload)
        try:
            for chunk in chunks:
                files.write(fd, chunk)
        finally:
            os.close(fd)

    def finish(self, repository: str, upload: str, digest: Digest) -> bool:
        """Make an upload that one has `alone` the blob that it should be; False if it was cancelled.

        It is an upload no more before it is hashed: what is hashed then is what is published. Raises DigestMismatch,
        and forgets it, if it is another.
        """
        if self._uploads.pop(upload, None) is None:
            return False
        path = self.root / "uploads" / upload
        found = _digest_of(path, digest.algorithm)
        if found != digest:
            files.unlink(path)
            raise DigestMismatch(digest, str(found))
        with self._lock:
            self._publish(path, digest)
            self._hold(repository, digest)
        return True

    def cancel(self, upload: str) -> bool:
        """Forget an upload, whoever is sending to it; False if it is none any more."""
        if self._uploads.pop(upload, None) is None:
            return False
        files.unlink(self.root / "uploads" / upload)
        return True

    # --- manifests and tags ---

    def put(self, repository: str, kept: Kept, tag: str = "") -> None:
        """Keep a manifest, and perhaps point a tag at it."""
        with self._lock:
            if not self._bytes(kept.digest).exists():
                files.make_directory(self.root / "uploads", durable=False)
                with files.temporary(self.root / "uploads") as (temp, fd):
                    files.write(fd, kept.data)
                    self._publish(temp, kept.digest)
            mark = self._mark(repository, kept.digest, "_manifests")
            files.make_directory(mark.parent)
            files.replace(mark, kept.media_type.encode())
            if tag:
                place = self._repository(repository) / "_tags" / tag
                files.make_directory(place.parent)
                files.replace(place, str(kept.digest).encode())

    def manifest(self, repository: str, which: str) -> Kept | None:
        """A manifest by tag or digest."""
        try:
            digest = Digest.parse(which)
        except BadDigest:
            found = self._tagged(repository, which)
            if found is None:
                return None
            digest = found
        try:
            media_type = files.read(self._mark(repository, digest, "_manifests"), 1 << 10).decode()
            return Kept(digest, media_type, files.read(self._bytes(digest), MANIFEST_LIMIT_BYTES))
        except FileNotFoundError:
            return None

    def tags(self, repository: str) -> list[str]:
        """In the order of their names."""
        return files.names(self._repository(repository) / "_tags")

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Take a name away; the manifest stays."""
        with self._lock:
            return files.unlink(self._repository(repository) / "_tags" / tag)

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Take a manifest out of a repository, with the tags that point at it. Blobs stay: others may need them."""
        with self._lock:
            if not files.unlink(self._mark(repository, digest, "_manifests")):
                return False
            for tag in self.tags(repository):
                if self._tagged(repository, tag) == digest:
                    files.unlink(self._repository(repository) / "_tags" / tag)
            self._forget({digest})
            return True

    def missing(self, repository: str, contents: Contents) -> list[Digest]:
        """What a manifest names and its repository has not."""
        lost = [each for each in contents.blobs if self.blob(repository, each) is None]
        return lost + [each for each in contents.manifests if self.manifest(repository, str(each)) is None]

    def referrers(self, repository: str, digest: Digest) -> list[dict[str, object]]:
        """Descriptors of what says that this manifest is its subject (distribution-spec, listing referrers)."""
        found = []
        for each in self.manifests(repository):
            contents = Contents.parse(each.data)
            if contents.subject == digest:
                more = {"artifactType": contents.artifact_type, "annotations": dict(contents.annotations)}
                found.append(
                    {"mediaType": each.media_type, "digest": str(each.digest), "size": len(each.data)}
                    | {key: value for key, value in more.items() if value}
                )
        return found

    def manifests(self, repository: str) -> list[Kept]:
        """All of a repository."""
        names = files.names(self._repository(repository) / "_manifests")
        found = [self.manifest(repository, name.replace("-", ":", 1)) for name in names]
        return [each for each in found if each is not None]

    # --- all of them ---

    def names(self) -> list[str]:
        """Every repository that has a manifest or a blob."""
        top, found = self.root / "repositories", []
        for path, directories, _ in os.walk(top):
            if "_manifests" in directories or "_blobs" in directories:
                found.append(os.path.relpath(path, top))
            directories[:] = [each for each in directories if not each.startswith("_")]
        return sorted(found)

    def listed(self) -> list[Named]:
        """Every tag."""
        return [
            Named(repository, tag, kept.digest, Contents.parse(kept.data).size_bytes)
            for repository in self.names()
            for tag in self.tags(repository)
            if (kept := self.manifest(repository, tag)) is not None
        ]

    def sweep(self) -> None:
        """Remove blobs that no manifest needs, and uploads. Only while nobody pushes: at the start."""
        if (self.root / "uploads").exists():
            removal.remove_tree(self.root / "uploads")
        lost: set[Digest] = set()
        for repository in self.names():
            needed = {blob for each in self.manifests(repository) for blob in Contents.parse(each.data).blobs}
            for name in files.names(self._repository(repository) / "_blobs"):
                if (digest := Digest.parse(name.replace("-", ":", 1))) not in needed:
                    files.unlink(self._mark(repository, digest))
                    lost.add(digest)
        self._forget(lost)

    # --- below ---

    def _repository(self, name: str) -> Path:
        return self.root / "repositories" / name

    def _mark(self, repository: str, digest: Digest, kind: str = "_blobs") -> Path:
        return self._repository(repository) / kind / f"{digest.algorithm}-{digest.hex}"

    def _bytes(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.hex

    def _tagged(self, repository: str, tag: str) -> Digest | None:
        with suppress(FileNotFoundError):
            return Digest.parse(files.read(self._repository(repository) / "_tags" / tag, 1 << 10).decode())
        return None

    def _publish(self, path: Path, digest: Digest) -> None:
        target = self._bytes(digest)
        files.make_directory(target.parent)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.sync_file(fd)
        finally:
            os.close(fd)
        # Over a twin, if there is one: the same bytes.
        files.publish(path, target)

    def _hold(self, repository: str, digest: Digest) -> None:
        mark = self._mark(repository, digest)
        files.make_directory(mark.parent)
        if not mark.exists():
            files.replace(mark, b"")

    def _forget(self, digests: set[Digest]) -> None:
        """Remove the bytes of those that no repository has any more."""
        every = self.names()
        for digest in digests:
            if not any(
                self._mark(name, digest, kind).exists() for name in every for kind in ("_blobs", "_manifests")
            ):  # fmt: skip
                files.unlink(self._bytes(digest))


@dataclass(frozen=True, slots=True)
class Contents:
    """What a registry reads in a manifest or index: whatever else stands there is other people's business."""

    blobs: tuple[Digest, ...] = ()
    """The config and the layers that a registry has to have; not those that are to be had elsewhere, by urls."""
    manifests: tuple[Digest, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    size_bytes: int = 0
    """What it names, and itself."""

    @classmethod
    def parse(cls, data: bytes) -> Contents:
        """Raises BadDocument."""
        document = load(data, "manifest")
        configs = [document.object("config")] if document.values.get("config") else []
        named = [*configs, *document.objects("layers"), *document.objects("blobs")]
        media_type = configs[0].text("mediaType") if configs else ""
        subject = document.object("subject") if document.values.get("subject") else None
        return cls(
            tuple(each.digest("digest") for each in named if not each.texts("urls")),
            tuple(each.digest("digest") for each in document.objects("manifests")),
            subject.digest("digest") if subject else None,
            document.text("artifactType") or media_type,
            document.texts_by_name("annotations"),
            len(data) + sum(each.count("size") for each in named),
        )


def _digest_of(path: Path, algorithm: str) -> Digest:
    with path.open("rb") as file:
        return Digest(algorithm, hashlib.file_digest(file, algorithm).hexdigest())
