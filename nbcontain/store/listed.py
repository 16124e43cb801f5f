"""What one state of index.json says (image-spec image-layout.md#indexjson-file): entries, some of which have names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property, lru_cache

from nbcontain.errors import BadReference
from nbcontain.oci import codec
from nbcontain.oci.digest import Digest
from nbcontain.oci.image import REF_NAME, Descriptor, Index
from nbcontain.oci.reference import Reference

WITHIN = "org.nbcontain.within"
"""Annotation of a name: the digest of the index at its registry out of which its image was chosen."""
Named = tuple[Reference | None, Descriptor]


class Listed:
    """One state of index.json, parsed when something is asked of it, unless who has just written it knows `entries`."""

    def __init__(self, data: bytes, entries: list[Descriptor] | None = None) -> None:
        self.data = data
        self._entries = entries

    @cached_property
    def entries(self) -> list[Descriptor]:
        """All of them, also those that are no images."""
        return list(codec.parse_index(self.data).manifests) if self._entries is None else self._entries

    @cached_property
    def named(self) -> list[Named]:
        """The same with their names."""
        return [(name_of(entry), entry) for entry in self.entries]

    def by_name(self, reference: Reference) -> list[Named]:
        """Those of this name."""
        return self._by_name.get(reference, [])

    @cached_property
    def _by_name(self) -> dict[Reference, list[Named]]:
        found: dict[Reference, list[Named]] = {}
        for name, entry in self.named:
            if name is not None:
                found.setdefault(name, []).append((name, entry))
        return found


def name_of(entry: Descriptor) -> Reference | None:
    """The name of an entry; None if it has none, or one that is none of ours."""
    text = entry.annotations.get(REF_NAME)
    return None if text is None else _reference(text)


@lru_cache(4096)
def _reference(text: str) -> Reference | None:
    """Remembered, since a thousand names are the same after one more was given."""
    try:
        return Reference.parse(text)
    except BadReference:
        # Another program's entry: the image is one, its name is none of ours.
        return None


def names_more(index: bytes, other: bytes) -> bool:
    """Whether an index.json names something that the other one does not. Pure."""
    if index == other:
        return False
    known = {_key(entry) for entry in codec.parse_index(other).manifests}
    return any(_key(entry) not in known for entry in codec.parse_index(index).manifests)


def _key(entry: Descriptor) -> tuple[Digest, str | None]:
    return entry.digest, entry.annotations.get(REF_NAME)


def without_names(index: bytes, before: Iterable[Descriptor], after: Collection[Descriptor]) -> bytes:
    """An index.json that has lost what another one has lost: the names, and of what has none the digests. Pure."""
    lost = [entry for entry in before if entry not in after]
    names = {entry.annotations.get(REF_NAME) for entry in lost} - {None}
    digests = {entry.digest for entry in lost if REF_NAME not in entry.annotations}
    return codec.dump_index(Index(tuple(apart_from(names, digests, codec.parse_index(index).manifests))))


def apart_from(
    names: Collection[str | None], digests: Collection[Digest], entries: Iterable[Descriptor]
) -> list[Descriptor]:
    """The entries that have none of these names, and of those without a name the ones of no such digest. Pure."""
    return [
        entry
        for entry in entries
        if (entry.annotations[REF_NAME] not in names if REF_NAME in entry.annotations else entry.digest not in digests)
    ]


def standing(reference: Reference, entries: Iterable[Descriptor]) -> list[Descriptor]:
    """Those that have the name, or with a digest in it are that of its repository."""
    found = []
    for entry in entries:
        name = name_of(entry)
        # A name with a digest may name an index, out of which this image was chosen.
        is_meant = name == reference
        if reference.digest is not None and not is_meant:
            digests = (str(entry.digest), entry.annotations.get(WITHIN))
            is_meant = str(reference.digest) in digests and (name is None or name.is_beside(reference))
        is_index = entry.media_type in codec.INDEXES and name is not None
        if is_meant and (is_index or entry.media_type in codec.MANIFESTS):
            found.append(entry)
    return found


def near(text: str, names: Sequence[str]) -> str:
    """Which of these names may have been meant, or which there are: a hint. Pure."""
    from difflib import get_close_matches

    # What all names have in common makes none like another.
    by_short = {name.removesuffix(":latest"): name for name in names} | {name: name for name in names}
    close = [by_short[match] for match in get_close_matches(text.removesuffix(":latest"), by_short, n=3, cutoff=0.6)]
    if close:
        return f"did you mean {' or '.join(dict.fromkeys(close))}?"
    if names:
        return f"Here are: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
    return "There are no images here yet."
