"""What a build hands out beside the image in the store, as buildx's --output says it."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.errors import BadReference, UsageError
from nbcontain.oci.reference import Reference
from nbcontain.store.layer_forms import form_of
from nbcontain.truth import truth
from nbcontain.values import dataclass, replace

KINDS = {
    "local": "a directory of files",
    "tar": "one tar of the files",
    "oci": "the image as an OCI layout, in a tar or a directory",
    "docker": "the image as docker save writes it; without dest= into the store, and nothing besides",
    "image": "the image in the store, and with push=true in its registry",
    "registry": "the image in its registry",
    "cacheonly": "nothing",
}
_HINT = (
    "-o DIR; -o - for a tar of the files on standard output; or -o type=local|tar|oci|docker|image|registry"
    "[,dest=PATH][,tar=false][,name=NAME][,push=true][,compression=gzip|zstd|uncompressed]"
)
_AS_IT_IS = {
    "oci-mediatypes": ("true", "1"), "rewrite-timestamp": ("true", "1", "false", "0"),
    "unpack": ("true", "1"), "store": ("true", "1"), "name-canonical": ("false", "0"),
}  # fmt: skip
"""What can only be said to be as it is anyway."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How the layers of what was built are compressed: those that were made, or all of them, its base's too."""

    name: str = "gzip"
    level: int | None = None
    all_layers: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """One place where a build's result goes."""

    kind: str
    """One of KINDS, but for registry, which is an image that is pushed."""
    destination: str = ""
    """A path; "-" is standard output. "" for what goes to no file."""
    is_directory: bool = False
    """An OCI layout as a directory (tar=false)."""
    push: bool = False
    names: tuple[Reference, ...] = ()
    """What it is called there, beside the build's tags."""
    by_digest: bool = False
    """Pushed without a tag."""
    platform_split: bool | None = None
    """Whether files of an image go below its platform's name (linux_arm64); None for where there are several."""
    compression: Compression | None = None

    @classmethod
    def parse(cls, text: str) -> Output:
        """Read type=…,dest=…, a directory's name, or -. Raises UsageError."""
        if "=" not in text:
            return cls("tar" if text == "-" else "local", text)
        import csv

        try:
            [parts] = csv.reader([text], strict=True)
        except (csv.Error, ValueError) as error:
            raise UsageError(f"-o {text}: the quotes are not closed", hint=_HINT) from error
        pairs = dict(part.partition("=")[::2] for part in parts)
        given = {name.strip().lower(): value for name, value in pairs.items()}
        kind = given.pop("type", "")
        if kind not in KINDS:
            raise UsageError(f"-o {text}: there is no type {kind!r}", hint=_HINT)
        output = cls(
            "image" if kind == "registry" else kind,
            given.pop("dest", ""),
            is_directory=not _truth(text, "tar", given.pop("tar", "true")) if kind in ("oci", "docker") else False,
            push=_truth(text, "push", given.pop("push", "true" if kind == "registry" else "false")),
            names=tuple(_name(text, each) for each in given.pop("name", "").split(",") if each),
            by_digest=_truth(text, "push-by-digest", given.pop("push-by-digest", "false")),
            platform_split=(
                _truth(text, "platform-split", given.pop("platform-split"))
                if kind == "local" and "platform-split" in given else None
            ),
            compression=_compression(text, given) if kind in ("oci", "docker", "image", "registry") else None,
        )  # fmt: skip
        output._refuse(text, given)
        return output._with_place(text)

    def _refuse(self, text: str, given: dict[str, str]) -> None:
        for name, value in given.items():
            known = _AS_IT_IS.get(name)
            if known is None or value not in known:
                hint = "--annotation LEVEL:KEY=VALUE" if name.startswith("annotation") else _HINT
                why = f"{name} is {' or '.join(known[:1])} here" if known else ""
                raise UsageError(f"-o {text}: {name}={value} is not to be had", why=why, hint=hint)
        if self.push and self.kind != "image":
            raise UsageError(f"-o {text}: only type=image is pushed", hint=_HINT)
        if self.destination and self.kind in ("image", "cacheonly"):
            raise UsageError(f"-o {text}: type={self.kind} goes to no file", hint=_HINT)

    def _with_place(self, text: str) -> Output:
        if self.destination or self.kind in ("image", "cacheonly") or (self.kind == "docker" and not self.is_directory):
            if self.is_directory and self.destination == "-":
                raise UsageError(f"-o {text}: a directory does not go to standard output", hint=_HINT)
            return self
        if self.kind == "local" or self.is_directory:
            raise UsageError(f"-o {text}: where to?", hint=_HINT)
        return replace(self, destination="-")

    @property
    def carries_attestations(self) -> bool:
        """Whether what is said of the image goes there as part of an index."""
        return self.push or (self.kind == "oci")

    @property
    def names_here(self) -> tuple[Reference, ...]:
        """What the image is called in the store, beside the build's tags."""
        is_stored = self.kind == "image" or (self.kind == "docker" and not self.destination)
        return self.names if is_stored and not self.by_digest else ()

    def targets(self, tags: Sequence[Reference]) -> tuple[Reference, ...]:
        """What it is called where it is pushed to. Raises UsageError if it has no name."""
        names = self.names or tuple(tags)
        if not names:
            raise UsageError("an image that is pushed needs a name", hint="-t REGISTRY/NAME:TAG")
        return tuple(replace(name, tag=None) for name in names) if self.by_digest else names


def checked(outputs: Sequence[Output], tags: Sequence[Reference]) -> None:
    """Whether they can all be served. Raises UsageError."""
    if sum(each.destination == "-" for each in outputs) > 1:
        raise UsageError("standard output can be one -o only", hint="dest=FILE for the others")
    compression_of(outputs)
    for each in outputs:
        if each.push:
            each.targets(tags)


def compression_of(outputs: Sequence[Output]) -> Compression | None:
    """How what is built is compressed, in the store and wherever it goes: its digest is one. Raises UsageError."""
    said = list(dict.fromkeys(each.compression for each in outputs if each.compression is not None))
    if len(said) > 1:
        raise UsageError(
            "one build has one compression: an image has the same digest wherever it goes",
            hint="say the same with each -o, or %image convert makes another of it afterwards",
        )
    return said[0] if said else None


def _compression(text: str, given: dict[str, str]) -> Compression | None:
    if not given.keys() & {"compression", "compression-level", "force-compression"}:
        return None
    level, all_layers = given.pop("compression-level", None), given.pop("force-compression", "false")
    try:
        number = int(level) if level is not None else None
        form_of(name := given.pop("compression", "gzip"), number)
    except ValueError:
        raise UsageError(f"-o {text}: compression-level is a number", hint=_HINT) from None
    except UsageError as error:
        raise UsageError(f"-o {text}: {error.message}", hint=error.hint) from error
    return Compression(name, number, _truth(text, "force-compression", all_layers))


def _truth(text: str, name: str, value: str) -> bool:
    found = truth(value or "true")
    if found is None:
        raise UsageError(f"-o {text}: {name} is true or false", hint=_HINT)
    return found


def _name(text: str, name: str) -> Reference:
    try:
        return Reference.new(name)
    except BadReference as error:
        raise UsageError(f"-o {text}: {error.message}", why=error.why, hint=error.hint) from error
