"""`doctor`: what this machine allows, why not, and what to try."""

from __future__ import annotations

from pathlib import Path

from nbcontain.commands.table import command
from nbcontain.diagnosis import Finding, diagnosed, ladder
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Document, Lines
from nbcontain.engine import Engine
from nbcontain.errors import UsageError
from nbcontain.options import option, with_defaults
from nbcontain.probe_file import document, write
from nbcontain.values import dataclass


@dataclass(frozen=True, kw_only=True)
@with_defaults
class DoctorWords:
    cached: bool = option("--cached", help="the rungs of the ladder, as last found out: nothing is tried")
    format: str = option(
        "--format", help="json, or table (the default); json has no names of users, hosts and directories in it",
        metavar="FORMAT",
    )  # fmt: skip
    output: str = option("-o", "--output", help="write the json to this file, for a report to others", metavar="FILE")


@command("nbcontain", "doctor", "what this machine allows, why not, and what to try", DoctorWords)
def doctor(engine: Engine, words: DoctorWords) -> Table | Document | Lines:
    if words.format not in ("", "json", "table"):
        raise UsageError(f"doctor: --format {words.format}", hint="--format json or --format table")
    if words.output:
        path = write(engine, Path(words.output).expanduser())
        return Lines((f"{path}: what was found out here, without names of users, hosts and directories",))
    if words.format == "json":
        return Document(document(engine))
    return findings_table(engine, is_cached=words.cached)


def findings_table(engine: Engine, *, is_cached: bool = False) -> Table:
    """What was found out, as a table. With `is_cached` only the rungs of the ladder: nothing is tried."""
    if is_cached:
        found: tuple[Finding, ...] = ladder(engine.host, engine.profile)
    else:
        found = (*diagnosed(engine), *ladder(engine.host, engine.profile))
    rows = tuple((each.state, each.what, each.why, each.attempt) for each in found)
    columns = ("HERE", Column("WHAT", look="wide"), Column("WHY", look="wide"), Column("TRY", look="wide"))
    return Table(columns, rows, engine.profile.describe(), "what this machine allows", below=2)
