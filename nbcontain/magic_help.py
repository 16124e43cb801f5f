"""What `?` tells of a magic. It takes all commands' modules, so it is written when somebody asks."""

from __future__ import annotations

from nbcontain.commands import overview
from nbcontain.magic_names import GROUP_MAGICS
from nbcontain.options import parser_of


def documentation(magic: str) -> str:
    """The text behind `%container?`."""
    if magic == "dockerfile":
        from nbcontain.commands.builds import DockerfileWords

        return parser_of(
            DockerfileWords, "%%dockerfile", "Make an image from the Dockerfile in this cell."
        ).format_help()
    if magic == "contextfile":
        from nbcontain.commands.contextfiles import help_text

        return help_text()
    if magic in ("check", "hint", "solution", "quiz"):
        from nbcontain.lessons import teacher

        return teacher.documentation(magic)
    group = magic if magic in GROUP_MAGICS else ""
    return f"%{magic} COMMAND [OPTIONS]\n\n{overview(group)}\n\n%{magic} COMMAND --help tells more."
