"""COPY and ADD: which files, from where, to where."""

from __future__ import annotations

import posixpath
import re

from nbcontain.build.graph import Base, CopyFiles, Document, RemoteFile, Repository, StackLayers, Vertex
from nbcontain.build.stage import Scene, StageState, absolute, apply, one_line
from nbcontain.build.values import mode_of
from nbcontain.dockerfile import ast
from nbcontain.errors import BadDigest, BuildError, DockerfileError, Span
from nbcontain.oci.digest import Digest

_CHECKSUM = "sha256: and the 64 digits that sha256sum FILE prints"
_ID = re.compile(r"[0-9]*(:[0-9]*)?")


@apply.register
def _(copy: ast.Copy, state: StageState, scene: Scene) -> StageState:
    return _Copying(copy, "COPY", state, scene).done()


@apply.register
def _(add: ast.Add, state: StageState, scene: Scene) -> StageState:
    return _Copying(add, "ADD", state, scene).done()


class _Copying:
    """One COPY or ADD being read."""

    def __init__(self, copy: ast.Copy | ast.Add, keyword: str, state: StageState, scene: Scene) -> None:
        self.copy = copy
        self.keyword = keyword
        self.state = state
        self.scene = scene
        self.from_ = copy.from_ if isinstance(copy, ast.Copy) else ""
        self.directory = scene.directory(self.from_) if self.from_ else ""
        """The context that --from names; None for an image or a stage."""
        self.parents = isinstance(copy, ast.Copy) and copy.parents

    def _expand(self, word: str) -> str:
        return self.scene.expand(word, self.state, self.copy.span)

    def done(self) -> StageState:
        copy, span = self.copy, self.copy.span
        named = [self._expand(source) for source in copy.sources]
        remotes = [self._remote(source) for source in named]
        if isinstance(copy, ast.Add) and self._expand(copy.checksum) and (len(remotes) != 1 or remotes[0] is None):
            # What nobody would compare must not look as if it had been.
            raise DockerfileError(
                "--checksum is for one URL or repository", span,
                hint="ADD each of them in an instruction of its own; files of the context need none.",
            )  # fmt: skip
        given = self._expand(copy.destination)
        chown, chmod = self._expand(copy.chown), self._expand(copy.chmod)
        unpack = copy.unpack if isinstance(copy, ast.Add) else False
        operation = CopyFiles(
            sources=tuple(self._path(path) for path, remote in zip(named, remotes, strict=True) if remote is None),
            destination=absolute(self.state.working_dir, given),
            from_context=self.directory is not None,
            context=self.directory or "",
            chown=chown,
            chmod=mode_of(chmod, span) if chmod else "",
            into_directory=self.parents or given in ("", ".", "..") or given.endswith(("/", "/.", "/..")),
            unpack=self.keyword == "ADD" if unpack is None else unpack,
            unpack_remote=bool(unpack),
            parents=self.parents,
            excludes=tuple(self._expand(pattern) for pattern in copy.excludes),
            remotes=tuple(remote for remote in remotes if remote is not None),
            remote_places=_places(remotes),
            documents=tuple(Document(_name(each, span), self._document(each)) for each in copy.heredocs),
        )
        created_by = self._created_by(named, given, chown, chmod)
        others = (self.scene.source(self.from_, span),) if self.directory is None else ()
        label = one_line(copy.text)
        if not copy.link or not _ID.fullmatch(chown):
            # Whose name a name is, only the image below can tell.
            return self.state.then(created_by, operation, *others, label=label, span=span)
        scratch = Vertex(Base(None), (), "FROM scratch", span)
        alone = Vertex(operation, (scratch, *others), label, span)
        self.scene.aside(scratch)
        self.scene.aside(alone)
        return self.state.then(created_by, StackLayers(), alone, label=label, span=span)

    def _created_by(self, named: list[str], given: str, chown: str, chmod: str) -> str:
        flags = ["--parents"] * self.parents
        flags += [f"--{name}={value}" for name, value in (("chown", chown), ("chmod", chmod)) if value]
        documents = [f"<<{each.name}" for each in self.copy.heredocs]
        shown = [_shown(source) for source in named]
        return " ".join((self.keyword, *flags, *shown, *documents, given, "# buildkit"))

    def _document(self, heredoc: ast.Heredoc) -> str:
        if not heredoc.expand:
            return heredoc.text
        return self.scene.document(heredoc.text, self.state, self.copy.span)

    def _remote(self, source: str) -> RemoteFile | Repository | None:
        """What ADD gets from elsewhere; None for a file of the context or a stage. Raises DockerfileError."""
        if ":" not in source:
            return None
        from nbcontain.build import git, http

        is_repository = git.is_repository(source)
        if not is_repository and not source.startswith(("http://", "https://")):
            return None
        span = self.copy.span
        if not isinstance(self.copy, ast.Add):
            kind = "a git repository" if is_repository else "a URL"
            raise DockerfileError(
                f"COPY cannot take {http.redacted(source)}", span, why=f"it is {kind}", hint="ADD can."
            )
        checksum = self._expand(self.copy.checksum)
        if is_repository:
            keeps = bool(self.copy.keep_git_dir)
            try:
                return git.parse(source, keeps_git_dir=keeps, checksum=checksum)
            except BuildError as error:
                raise DockerfileError(error.message, span, why=error.why, hint=error.hint) from error
        if checksum:
            try:
                checksum = str(Digest.parse(checksum))
            except BadDigest as error:
                raise DockerfileError(f"--checksum={checksum} is no digest", span, hint=_CHECKSUM) from error
        return RemoteFile(source, http.file_name(source) or "__unnamed__", checksum)

    def _path(self, path: str) -> str:
        """A source relative to its root, "." for the root itself; with --parents, what stands before /./ apart."""
        if self.parents and "/./" in path:
            above, _, below = path.partition("/./")
            return f"{self._relative(above)}/./{self._relative(below)}"
        return self._relative(path)

    def _relative(self, path: str) -> str:
        relative = posixpath.normpath(path.lstrip("/") or ".")
        if not self.from_ and relative.split("/")[0] == "..":
            self.scene.remark(
                f"{path} is taken for the one in the build context: there is nothing above it",
                self.copy.span,
                "Choose a higher directory with --context.",
            )
        # As in docker: above a root there is nothing.
        found = posixpath.normpath("/" + relative).lstrip("/") or "."
        if not self.from_ and self.scene.is_ignored(found):
            self.scene.check("CopyIgnoredFile", self.copy.span, self.keyword.capitalize(), found)
        return found


def _places(remotes: list[RemoteFile | Repository | None]) -> tuple[int, ...]:
    """How many sources of the context come before each remote; () where all do."""
    before = [sum(each is None for each in remotes[:at]) for at, remote in enumerate(remotes) if remote is not None]
    return () if all(each == remotes.count(None) for each in before) else tuple(before)


def _name(heredoc: ast.Heredoc, span: Span) -> str:
    """What a document's file is called."""
    if heredoc.name in (".", "..") or "/" in heredoc.name or "\0" in heredoc.name:
        raise DockerfileError(f"<<{heredoc.name} is no name of a file", span)
    return heredoc.name


def _shown(source: str) -> str:
    """A source without the user and password that a URL may hold."""
    if "://" not in source:
        return source
    from nbcontain.build.http import redacted

    return redacted(source)
