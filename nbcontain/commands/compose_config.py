"""`compose config`: what a project's files come to, as one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbcontain.commands.compose import ComposeWords, profiles_of
from nbcontain.commands.table import command
from nbcontain.compose.document import written
from nbcontain.display.values import Lines, Raw
from nbcontain.errors import UsageError
from nbcontain.options import option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ConfigWords(ComposeWords):
    quiet: bool = option("-q", "--quiet", help="only check it")
    services: bool = option("--services", help="the services' names alone")
    volumes: bool = option("--volumes", help="the volumes' names alone")
    networks: bool = option("--networks", help="the networks' names alone")
    images: bool = option("--images", help="the images' names alone")
    only_profiles: bool = option("--profiles", help="the profiles' names alone")
    hash: str = option("--hash", help="what a service's container is made of, as a number; * for all",
                       metavar="SERVICE")  # fmt: skip
    format: str = option("--format", help="yaml or json", default="yaml", metavar="yaml|json")
    no_interpolate: bool = option("--no-interpolate", help="with variables as they are written, and nothing checked")


@command("compose", "config", "check a compose file, and show it with its variables filled in", ConfigWords)
def compose_config(engine: Engine, words: ConfigWords) -> Lines | Raw:
    if words.format not in ("yaml", "json"):
        raise UsageError(f"compose config --format {words.format}: there is no such format", hint="yaml or json")
    if words.no_interpolate:
        tree = engine.compose.tree(words.source)
        return Lines(()) if words.quiet else _shown(words.format, tree.plain(), ())
    project, tree = engine.compose.read(words.source)
    services = project.chosen((), profiles_of(engine, words))
    if words.quiet:
        return Lines(())
    if words.hash:
        meant = services if words.hash == "*" else (project.service(words.hash),)
        return Lines(tuple(f"{each.name} {each.digest()}" for each in meant))
    known = (
        (words.services, [each.name for each in services]),
        (words.volumes, [each.key for each in project.volumes]),
        (words.networks, sorted({each.key for service in services for each in service.networks})),
        (words.images, [each.image for each in services]),
        (words.only_profiles, sorted({name for each in project.services for name in each.profiles})),
    )
    if (names := next((names for is_asked, names in known if is_asked), None)) is not None:
        return Lines(tuple(names))
    rest = {key: value for key, value in tree.plain(again=True).items() if key not in ("name", "version")}
    shown: dict[str, Any] = {"name": project.name, **rest}
    shown["services"] = {each.name: shown["services"][each.name] for each in services}
    return _shown(words.format, shown, project.warnings)


def _shown(format: str, value: dict[str, Any], warnings: Sequence[str]) -> Raw:
    if format == "json":
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        return Raw(lambda: iter((text.encode(),)), "compose.json")
    said = "".join(f"# {each}\n" for each in warnings) + written(value)
    return Raw(lambda: iter((said.encode(),)), "compose.yaml")
