"""What a build is made from, open for as long as it goes on: its Dockerfile, its context, and those that have names.

What is not a directory already is written into a directory of the store, without ever leaving it, and gone when the
build is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from nbcontain.build.context import MAX_DOCKERFILE_BYTES, ContentCache, Context
from nbcontain.build.graph import RemoteFile, Repository, hash_of
from nbcontain.build.named import CONTEXT_FILE, Inside, LayoutImage, NamedSource
from nbcontain.build.operations import Workshop
from nbcontain.build.patterns import Ignore
from nbcontain.build.sources import Source, is_archive, is_directory, write_out
from nbcontain.errors import BuildError
from nbcontain.events import Emit, scope
from nbcontain.oci.image import REF_NAME, Descriptor, Image, Platform
from nbcontain.oci.reference import Reference
from nbcontain.store import files
from nbcontain.values import dataclass, field, replace

DockerfileSource = str | Inside | RemoteFile
"""The text of a Dockerfile, or where it is."""
_NAMED = 8
"""So many files are named in an error."""
_HEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Origin:
    """A place of which the content is known: the URL without credentials, and a commit or a digest."""

    url: str
    algorithm: str
    hex: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """All of them, open."""

    dockerfile: str
    """Its text."""
    directories: Mapping[str, Context] = field(default_factory=dict)
    """By name; "" is the build's own context."""
    images: Mapping[str, Image | Reference | tuple[Image, ...]] = field(default_factory=dict)
    """By name; several of one name are for several platforms."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """Where directories were fetched, by name."""

    @property
    def origin(self) -> Origin | None:
        """Where the build's own context was fetched."""
        return self.origins.get("")

    def names(self, platform: Platform) -> dict[str, Image | Reference | None]:
        """What each name stands for in a build for this platform; None for a directory."""
        images = {name: _for(platform, each) for name, each in self.images.items()}
        return {**{name: None for name in self.directories if name}, **images}

    def is_ignored(self, path: str) -> bool:
        """Whether .dockerignore leaves out a path of the build's own context, for sure."""
        context = self.directories.get("")
        return context is not None and context.ignore.leaves_out(path)


@contextmanager
def opened(
    dockerfile: DockerfileSource, context: Source | None, named: Mapping[str, NamedSource], workshop: Workshop,
    contents: ContentCache, *, ignore: str | None = None, dockerfile_name: str = "Dockerfile",
    keeps_git_dir: bool = False, parent: str | None = None, platforms: Sequence[Platform] = (),
) -> Iterator[Inputs]:  # fmt: skip
    """Fetch and unpack what has to be. `ignore` stands for the context's .dockerignore; `parent` is the build's task,
    `platforms` are what it is for.

    Raises BuildError, UsageError, and what the store raises for a layout.
    """
    with ExitStack() as stack:
        opening = _Opening(workshop, contents, stack, parent)
        directories: dict[str, Context] = {}
        path = dockerfile.path if isinstance(dockerfile, Inside) else ""
        if context is not None:
            given = Ignore.parse(ignore, f"{dockerfile_name}.dockerignore") if ignore is not None else None
            if isinstance(context, Repository) and keeps_git_dir:
                context = replace(context, keeps_git_dir=True)
            root, is_plain = opening.root(context, "", unpack=True)
            if is_plain and path:
                path = CONTEXT_FILE
            cache = contents if isinstance(context, Path) and is_directory(context) else ContentCache()
            directories[""] = Context(root, cache, ignore=given, dockerfile=path, called=_called(context))
        match dockerfile:
            case str():
                text = dockerfile
            case Inside():
                text = _text(path, directories.get(""), dockerfile.otherwise)
            case RemoteFile():
                root, _ = opening.root(dockerfile, "dockerfile:", unpack=False)
                text = _text(CONTEXT_FILE, Context(root), None)
        images: dict[str, Image | Reference | tuple[Image, ...]] = {}
        for name, source in named.items():
            match source:
                case Reference() | Image():
                    images[name] = source
                case LayoutImage():
                    images[name] = opening.layout(name, source, platforms or (Platform.here(),))
                case _:
                    is_own = isinstance(source, Path) and is_directory(source)
                    root, _ = opening.root(source, name, unpack=False)
                    directories[name] = Context(root, contents if is_own else ContentCache(), called=_called(source))
        yield Inputs(text, directories, images, opening.origins)


def _called(source: Source) -> str:
    """What is in memory, for people: its directory is nobody's, and gone afterwards."""
    if not isinstance(source, Mapping):
        return ""
    names = sorted(map(str, source))
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"what is in memory: {', '.join(names[:_NAMED])}{rest}"


def _text(path: str, context: Context | None, otherwise: str | None) -> str:
    """A Dockerfile that lies in the context. Raises BuildError."""
    data = context.read(path, MAX_DOCKERFILE_BYTES) if context else None
    if data is None and otherwise is not None:
        return otherwise
    if data is None:
        raise BuildError(f"there is no {path} in the context", hint="-f FILE names another")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} in the context is no text", why=str(error)) from error


class _Opening:
    """Contexts being opened; what is made for them lasts as long as `stack`."""

    def __init__(self, workshop: Workshop, contents: ContentCache, stack: ExitStack, parent: str | None) -> None:
        self._workshop = workshop
        self._contents = contents
        self._stack = stack
        self._parent = parent
        self._place: Path | None = None
        self._count = 0
        self.origins: dict[str, Origin] = {}

    def root(self, source: Source, name: str, *, unpack: bool) -> tuple[Path, bool]:
        """The directory that a source is or becomes, and whether it is a file of a server that is no archive.

        `unpack`: an archive of a server gives what is in it.
        """
        match source:
            case Path() if is_directory(source):
                return source, False
            case Repository():
                return self._repository(source, name), False
            case RemoteFile():
                return self._file(source, name, unpack=unpack)
        root = self._new()
        write_out(source, root)
        return root, False

    def _new(self) -> Path:
        if self._place is None:
            store = self._workshop.store
            self._place = self._stack.enter_context(files.temporary_directory(store.layout.tmp))
            self._stack.callback(store.snapshots.remove_tree, self._place)
        self._count += 1
        root = self._place / f"context-{self._count}"
        root.mkdir(mode=0o700)
        return root

    def _emit(self, task: str) -> Emit:
        return lambda event: self._workshop.emit(replace(event, task=task))

    def _repository(self, source: Repository, name: str) -> Path:
        from nbcontain.build import git, http

        task = _task(name)
        url = http.redacted(source.url)
        with scope(self._workshop.emit, task, f"load {url}", self._parent):
            emit, access = self._emit(task), self._workshop.access
            commit = git.commit_of(source, access, emit, self._workshop.store.layout.tmp)
            self.origins[name] = Origin(f"{url}#{source.ref}" if source.ref else url, hash_of(commit), commit)
            return git.checked_out(source, commit, self._new(), access, emit)

    def _file(self, source: RemoteFile, name: str, *, unpack: bool) -> tuple[Path, bool]:
        from nbcontain.build import http

        task = _task(name)
        with scope(self._workshop.emit, task, f"load {http.redacted(source.url)}", self._parent):
            found = http.fetched(source, self._workshop.store.layout, self._workshop.access, self._emit(task))
            self.origins[name] = Origin(http.redacted(source.url), found.digest.algorithm, found.digest.hex)
            root = self._new()
            with found.path.open("rb") as file:
                is_plain = not is_archive(file.read(_HEAD_BYTES))
            if is_plain or not unpack:
                found.place(root / CONTEXT_FILE)
                return root, is_plain
            write_out(found.path, root)
            return root, False

    def layout(self, name: str, source: LayoutImage, platforms: Sequence[Platform]) -> tuple[Image, ...]:
        """An image of an OCI layout, of an index one for each platform, in the store. Raises BuildError, and what is
        wrong with the layout."""
        from nbcontain.store.archive_reader import read_archive

        chosen, wanted = partial(_chosen, source, platforms), _wanted(source)
        with scope(self._workshop.emit, _task(name), f"load {source.path}", self._parent):
            found = read_archive(source.path, self._workshop.store.blobs, chosen, wanted=wanted)
        if not found or (len(found) > 1 and any(each.index != found[0].index or not each.index for each in found)):
            what = str(source.digest or source.tag or "latest")
            raise BuildError(
                f"the layout {source.path} has no {what}" if not found else f"{source.path} has several images",
                hint=f"--build-context {name}=oci-layout://{source.path}:TAG, or @sha256:…",
            )
        return tuple(each.image for each in found)


def _task(name: str) -> str:
    """What loading a context is called among the tasks of a build."""
    return f"context {name}".strip()


def _wanted(source: LayoutImage) -> Callable[[Sequence[Descriptor]], list[Descriptor]]:
    """Which entries of index.json may lead to the image."""
    from nbcontain.oci import codec

    def wanted(entries: Sequence[Descriptor]) -> list[Descriptor]:
        if source.digest is not None:
            # If it is not named there, an index that is may name it.
            return [each for each in entries if each.digest == source.digest] or [
                each for each in entries if each.media_type in codec.INDEXES
            ]
        tagged = [each for each in entries if _tag_of(each) == (source.tag or "latest")]
        return tagged or ([] if source.tag or len(entries) != 1 else list(entries))

    return wanted


def _tag_of(entry: Descriptor) -> str:
    """Its tag: the whole annotation, or what stands behind the name in it."""
    name = entry.annotations.get(REF_NAME, "")
    return name.rpartition(":")[2] if "/" in name or ":" in name else name


def _chosen(
    source: LayoutImage, platforms: Sequence[Platform], entries: Sequence[Descriptor], name: str
) -> Sequence[Descriptor]:
    from nbcontain.oci.platforms import choose

    by_digest = [each for each in entries if each.digest == source.digest]
    return by_digest[:1] or [choose(entries, each, name) for each in platforms]


def _for(platform: Platform, found: Image | Reference | tuple[Image, ...]) -> Image | Reference:
    """Of the images of one name that for this platform; one alone is meant whatever it is for."""
    if not isinstance(found, tuple):
        return found
    if len(found) == 1:
        return found[0]
    from nbcontain.oci.indexes import entry_of
    from nbcontain.oci.platforms import choose

    entries = [entry_of(each) for each in found]
    return found[entries.index(choose(entries, platform, "image"))]
