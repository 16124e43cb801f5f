"""The commands on registries: docker's words."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nbcontain.commands.table import command
from nbcontain.display.values import Document, InProgress, Lines
from nbcontain.errors import UsageError
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.options import argument, option, with_defaults
from nbcontain.standard_input import asked
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PullWords:
    name: str = argument(help="an image, as in python:3.12-slim or registry.example/team/app:1", metavar="NAME")
    platform: str = option("--platform", help="os/architecture, if not this machine's", metavar="PLATFORM")
    all_tags: bool = option("-a", "--all-tags", help="all tags of the repository")
    quiet: bool = option("-q", "--quiet", help="only the image's id at the end")
    disable_content_trust: bool = option("--disable-content-trust", help="docker's word; there is none of it here")


@command("image", "pull", "get an image from its registry", PullWords, top=("pull",))
def image_pull(engine: Engine, words: PullWords) -> InProgress[object]:
    task = engine.registry.pull(words.name, platform=words.platform, all_tags=words.all_tags)

    def result(images: tuple[Image, ...]) -> object:
        return images[0] if len(images) == 1 else Lines(tuple(str(image.id) for image in images))

    return InProgress(task.then(result), "pull", words.quiet)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class PushWords:
    name: str = argument(help="an image here whose name says where it goes, as in registry.example/team/app:1",
                         metavar="NAME")  # fmt: skip
    to: str = argument(help="where it goes, if its name does not say it", nargs="?", default="", metavar="TO")
    all_tags: bool = option("-a", "--all-tags", help="all tags of the repository that are here")
    quiet: bool = option("-q", "--quiet", help="only the names at the end")
    preserve_digests: bool = option("--preserve-digests", help="send layers that are not compressed as they are, too")
    disable_content_trust: bool = option("--disable-content-trust", help="docker's word; there is none of it here")


@command("image", "push", "send an image to its registry", PushWords, top=("push",))
def image_push(engine: Engine, words: PushWords) -> InProgress[object]:
    if words.all_tags and words.to:
        raise UsageError("push: all tags of a repository, or one image to another name")
    task = engine.registry.push(
        words.name, all_tags=words.all_tags, to=words.to, preserve_digests=words.preserve_digests
    )

    def result(sent: tuple[tuple[Reference, object], ...]) -> object:
        return Lines(tuple(f"{name.familiar}@{digest}" if not words.quiet else name.familiar for name, digest in sent))

    return InProgress(task.then(result), "push", words.quiet)


@dataclass(frozen=True, kw_only=True)
@with_defaults
class TagsWords:
    name: str = argument(help="a repository", metavar="NAME")
    limit: int = option("-n", "--limit", help="no more than so many")
    last: str = option("--last", help="those after this one", metavar="TAG")


@command("image", "search-tags", "the tags of a repository in its registry", TagsWords)
def image_search_tags(engine: Engine, words: TagsWords) -> Lines:
    return Lines(tuple(engine.registry.tags(words.name, words.limit, words.last)))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ReferrersWords:
    name: str = argument(help="an image in a registry", metavar="NAME")
    artifact_type: str = option("--artifact-type", help="only of this type", metavar="TYPE")


@command("image", "referrers", "what refers to an image in its registry: signatures and the like", ReferrersWords)
def image_referrers(engine: Engine, words: ReferrersWords) -> Document:
    return Document(engine.registry.referrers(words.name, words.artifact_type))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ManifestWords:
    name: str = argument(help="an image in a registry", metavar="NAME")


@command("image", "manifest", "the manifest or index that a registry has under a name, as JSON", ManifestWords)
def image_manifest(engine: Engine, words: ManifestWords) -> Document:
    return Document(json.loads(engine.registry.manifest(words.name)))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LoginWords:
    registry: str = argument(help="a registry's host (default: docker.io)", nargs="?", default="", metavar="HOST")
    username: str = option("-u", "--username", help="who to be; asked for if it is not given", metavar="NAME")
    password_stdin: bool = option("--password-stdin", help="read the password from standard input, instead of asking")


@command("nbcontain", "login", "be somebody to a registry from now on", LoginWords)
def login(engine: Engine, words: LoginWords) -> Lines:
    host = words.registry or "docker.io"
    if words.password_stdin and not words.username:
        raise UsageError("login --password-stdin: who to be?", hint="login -u NAME --password-stdin")
    otherwise = f"in a terminal: nbcontain login -u {words.username or 'NAME'} --password-stdin {host} < FILE"
    username = words.username or asked(f"username for {host}: ", otherwise=otherwise).strip()
    # Asked for without echo, and never an argument: arguments are in histories and in notebooks.
    password = (
        sys.stdin.readline().rstrip("\r\n") if words.password_stdin
        else asked(f"password for {host}: ", secret=True, otherwise=otherwise)
    )  # fmt: skip
    if not username or not password:
        raise UsageError("login needs a name and a password")
    place = engine.registry.login(host, username, password)
    return Lines((f"Login Succeeded: {username} at {host}, kept in {place}",))


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LogoutWords:
    registry: str = argument(help="a registry's host (default: docker.io)", nargs="?", default="", metavar="HOST")


@command("nbcontain", "logout", "forget who one is to a registry", LogoutWords)
def logout(engine: Engine, words: LogoutWords) -> Lines:
    host = words.registry or "docker.io"
    was = engine.registry.logout(host)
    return Lines((f"Removing login credentials for {host}" if was else f"Not logged in to {host}",))
