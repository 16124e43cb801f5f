"""The verbs of the magics and of the terminal, written once: docker's names, flags and meanings.

A command returns a value (a table, lines, a document) or something in progress; it never prints.
Drawing what comes back is the business of whoever called. To add a verb, add a function to the module
of its group.
"""

from nbcontain.commands import (
    anatomy,
    archives,
    builds,
    checks,
    containers,
    doctor,
    housekeeping,
    images,
    manifests,
    registries,
    resources,
    system,
)  # fmt: skip
from nbcontain.commands.builds import DockerfileWords
from nbcontain.commands.table import COMMANDS, Command, overview, parse_words, split

__all__ = [
    "COMMANDS",
    "Command",
    "DockerfileWords",
    "anatomy",
    "archives",
    "builds",
    "checks",
    "containers",
    "doctor",
    "housekeeping",
    "images",
    "manifests",
    "overview",
    "parse_words",
    "registries",
    "resources",
    "split",
    "system",
]
