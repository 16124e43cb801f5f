"""What --call gives, to be drawn: tables for people, and buildx's documents for programs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from nbcontain.build.lint import CheckReport
from nbcontain.build.outline import Input, Outline, Target
from nbcontain.display.harmless import visible
from nbcontain.display.table import Column, Table
from nbcontain.display.words import count
from nbcontain.dockerfile.rules import CHECKS, RULES
from nbcontain.errors import Span
from nbcontain.values import dataclass


def targets_table(targets: Sequence[Target]) -> Table:
    """The stages by name, the one that is built without --target marked."""
    rows = [(_shown(each), each.description) for each in targets if each.name or each.is_default]
    unnamed = sum(not each.name and not each.is_default for each in targets)
    footer = f"{count(unnamed, 'more stage')} without a name" if unnamed else ""
    return Table((Column("TARGET", look="code"), Column("DESCRIPTION", look="wide")), rows, footer, "targets")


def _shown(target: Target) -> str:
    return f"{target.name} (default)".strip() if target.is_default else target.name


@dataclass(frozen=True, slots=True)
class OutlineDrawing:
    """An outline to draw: what is built, and a table of each kind of thing that it takes."""

    outline: Outline

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _tables(self) -> list[Table]:
        outline = self.outline
        arguments = [(each.name, each.value, each.description) for each in outline.arguments]
        columns = (_code("BUILD ARG"), _code("VALUE"), Column("DESCRIPTION", look="wide"))
        found = [Table(columns, arguments, label="build arguments")]
        for title, inputs in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
            rows = [(each.name, "required" if each.is_required else "") for each in inputs]
            found.append(Table((_code(title), "REQUIRED"), rows, label=title.lower()))
        found.append(Table((_code("CACHE"),), [(each.name,) for each in outline.caches], label="caches"))
        return [table for table in found if len(table)]

    def text(self) -> str:
        """For a terminal, as buildx prints it."""
        target = self.outline.target
        head = [("TARGET:", target.name or "(default)"), ("DESCRIPTION:", target.description)]
        lines = [f"{name:<12} {visible(value)}" for name, value in head if value]
        return "\n\n".join(["\n".join(lines), *(table.text() for table in self._tables())])

    def html(self) -> str:
        """For a cell."""
        outline = self.outline
        kinds = (("build arg", outline.arguments), ("secret", outline.secrets), ("ssh agent", outline.ssh),
                 ("cache", outline.caches))  # fmt: skip
        rows = [
            (kind, each.name, "required" if each.is_required else each.value, each.description)
            for kind, inputs in kinds
            for each in inputs
        ]
        columns = ("TAKES", _code("NAME"), _code("VALUE"), Column("DESCRIPTION", look="wide"))
        said = outline.target.description or ("" if rows else "takes nothing from outside")
        title = " ".join(part for part in (outline.target.name or "the last stage", said) if part)
        return Table(columns, rows, title, "outline of a Dockerfile").html()


def _code(title: str) -> Column:
    return Column(title, look="code")


# --- documents --------------------------------------------------------------------------------


def targets_document(targets: Sequence[Target], source: str) -> dict[str, Any]:
    """As --call=targets,format=json."""
    return {
        "targets": [
            _filled(name=each.name, default=each.is_default, description=each.description, base=each.base,
                    platform=each.platform, location=_location(each.span))
            for each in targets
        ],
        "sources": [_data(source)],
    }  # fmt: skip


def outline_document(outline: Outline, source: str) -> dict[str, Any]:
    """As --call=outline,format=json."""
    target = outline.target
    return _filled(
        name=target.name, description=target.description,
        args=[_input(each, "name") for each in outline.arguments],
        secrets=[_input(each, "name") for each in outline.secrets], ssh=[_input(each, "name") for each in outline.ssh],
        cache=[_input(each, "ID") for each in outline.caches], sources=[_data(source)],
    )  # fmt: skip


def _input(each: Input, key: str) -> dict[str, Any]:
    return {key: each.name} | _filled(
        description=each.description, value=each.value, required=each.is_required, location=_location(each.span)
    )


def check_document(report: CheckReport, name: str) -> dict[str, Any]:
    """As --call=check,format=json: BuildKit's findings alone, since whoever reads it expects those."""
    document: dict[str, Any] = {
        "warnings": [
            _filled(ruleName=each.rule, description=CHECKS[each.rule].description, url=RULES[each.rule].url,
                    detail=each.message, location=_location(each.span))
            for each in report.checks
        ],
        "sources": [{"filename": name, "language": "Dockerfile", "data": _data(report.source)}],
    }  # fmt: skip
    if report.errors:
        first = report.errors[0]
        document["buildError"] = _filled(message=first.message, location=_location(first.span))
    return document


def _filled(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _location(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {}
    return {"ranges": [{"start": {"line": span.first}, "end": {"line": span.last}}]}


def _data(source: str) -> str:
    return base64.b64encode(source.encode("utf-8", "surrogateescape")).decode()
