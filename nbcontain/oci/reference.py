"""Image names as docker reads them: [registry/]repository[:tag][@digest] (distribution/reference)."""

from __future__ import annotations

import re

from nbcontain.errors import BadDigest, BadReference
from nbcontain.oci.digest import Digest
from nbcontain.values import dataclass, replace

DEFAULT_REGISTRY = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
"""An image's id, which no name may look like (distribution/reference: anchoredIdentifierRegexp)."""
_HINT = "A name reads [registry/]repository[:tag], in lowercase, as in myapp:1 or registry.example/team/myapp:1."


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that points at an image. Past `parse` nobody handles an image name as text."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a name as docker does: docker.io, library/ and :latest are filled in. Raises BadReference."""
        name, at, digest_text = text.partition("@")
        try:
            digest = Digest.parse(digest_text) if at else None
        except BadDigest as error:
            raise BadReference(f"{text!r} is no image name", why=error.message, hint=_HINT) from error
        slash = name.rfind("/")
        colon = name.find(":", slash + 1)
        name, tag = (name[:colon], name[colon + 1 :]) if colon >= 0 else (name, None)
        first, separator, rest = name.partition("/")
        if separator and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
            registry, repository = first, rest
        else:
            registry, repository = DEFAULT_REGISTRY, name
        if registry == "index.docker.io":
            registry = DEFAULT_REGISTRY
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        if not _REGISTRY.fullmatch(registry) or not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
            raise BadReference(f"{text!r} is no image name", hint=_HINT)
        if _IDENTIFIER.fullmatch(text):
            raise BadReference(f"{text!r} is no image name", why="it looks like an image's id", hint=_HINT)
        if tag is not None and not _TAG.fullmatch(tag):
            why = f"the tag has {len(tag)} characters, more than 128" if len(tag) > 128 else f"{tag!r} is no tag"
            raise BadReference(f"{text!r} is no image name", why=why, hint=_HINT)
        if tag is None and digest is None:
            tag = "latest"
        return cls(registry, repository, tag, digest)

    @classmethod
    def new(cls, text: str) -> Reference:
        """Read a name that an image is to be given: one with a digest would say what is in it. Raises BadReference."""
        reference = cls.parse(text)
        if reference.digest is not None:
            why = "a digest is what an image has, not what it is given"
            raise BadReference(f"{text!r} is no name to give", why=why, hint=f"{text.partition('@')[0]}, without it")
        return reference

    def __str__(self) -> str:
        """The whole name, as it is stored: docker.io/library/hello:latest."""
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    def is_beside(self, other: Reference) -> bool:
        """Whether both are of one repository."""
        return (self.registry, self.repository) == (other.registry, other.repository)

    @property
    def pinned(self) -> Reference:
        """What is meant: a digest says more than a tag, so that with both the digest wins."""
        return replace(self, tag=None) if self.digest is not None else self

    @property
    def familiar(self) -> str:
        """The name as people write it: hello:latest."""
        return f"{self.familiar_repository}{str(self)[len(self.registry) + 1 + len(self.repository) :]}"

    @property
    def familiar_repository(self) -> str:
        """The repository as people write it: hello."""
        if self.registry != DEFAULT_REGISTRY:
            return f"{self.registry}/{self.repository}"
        return self.repository.removeprefix("library/")


def is_repository(text: str) -> bool:
    """Whether a registry may call a repository so (distribution-spec, pulling manifests): also fit to be a path."""
    return len(text) <= 255 and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether that is a tag's name."""
    return _TAG.fullmatch(text) is not None
