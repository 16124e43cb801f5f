"""`system check`: whether the store is sound, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcontain.commands.table import command
from nbcontain.display.table import Column, Table
from nbcontain.display.values import Document, InProgress, Lines, Verdict
from nbcontain.display.words import duration, size
from nbcontain.errors import UsageError
from nbcontain.options import option, with_defaults
from nbcontain.soundness import Report
from nbcontain.store.check import Finding
from nbcontain.values import asdict, dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine


@dataclass(frozen=True, kw_only=True)
@with_defaults
class CheckWords:
    quick: bool = option("--quick", "-q", help="sizes and references only (the default)")
    full: bool = option("--full", help="read every blob and compare its digest")
    repair: bool = option("--repair", "-r", help="put right what can be; what is damaged is set aside, not deleted")
    format: str = option("--format", help="json, or table (the default)", metavar="FORMAT")


@command(
    "system", "check", "whether images, layers and containers are whole; --repair puts right what is not", CheckWords
)
def check(engine: Engine, words: CheckWords) -> InProgress[Verdict]:
    if words.format not in ("", "json", "table"):
        raise UsageError(f"system check: --format {words.format}", hint="--format json or --format table")
    if words.quick and words.full:
        raise UsageError("system check: --quick or --full, not both", hint="system check --full")

    def drawn(report: Report) -> Verdict:
        value: object = Document(_document(report)) if words.format == "json" else _table(report, words)
        return Verdict(value, 0 if report.is_clean else 1)

    return InProgress(engine.soundness.check(full=words.full, fix=words.repair, wrap=drawn), "work")


def _table(report: Report, words: CheckWords) -> Table | Lines:
    rows = [
        (each.kind, each.subject, each.detail, each.meaning.text, _outcome(each, report, words.repair))
        for each in report.findings
    ]
    looked = report.looked
    read = f", {size(looked.bytes_read)} read" if looked.bytes_read else ""
    summary = (
        f"{len(report.left)} of {len(report.findings)} left" if words.repair and rows
        else f"{len(rows)} found" if rows else "clean"
    )  # fmt: skip
    footer = (
        f"{summary}: {looked.images} images, {looked.blobs} blobs, {looked.snapshots} layers, {looked.containers} "
        f"containers, {looked.cache_records} build records{read} in {duration(report.seconds)}"
    )
    if looked.is_busy:
        footer += "; others are at work here: leftovers of containers were not looked for"
    columns = (
        "what",
        "which",
        Column("fact", look="wide"),
        Column("meaning", look="wide"),
        Column("repair", look="wide"),
    )
    return Table(columns, rows, footer, "what system check found") if rows else Lines((footer,))


def _outcome(finding: Finding, report: Report, did_repair: bool) -> str:
    if not did_repair:
        return finding.meaning.repair
    is_left = any(each.kind == finding.kind and each.path == finding.path for each in report.left)
    return "not possible: " + finding.meaning.repair if is_left else "done: " + finding.meaning.repair


def _document(report: Report) -> dict[str, Any]:
    return {
        "clean": report.is_clean,
        "findings": [_finding(each) for each in report.findings],
        "left": [_finding(each) for each in report.left],
        "looked": asdict(report.looked),
        "seconds": round(report.seconds, 3),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind, "subject": finding.subject, "detail": finding.detail, "path": str(finding.path),
        "means": finding.meaning.text, "repair": finding.meaning.repair,
    }  # fmt: skip
