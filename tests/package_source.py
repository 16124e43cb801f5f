"""The package's own source, as the architecture tests look at it: modules, their imports, what they name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbcontain

PACKAGE = Path(nbcontain.__file__).parent


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str
    """Dotted, from the package on: "nbcontain.store.blobs"; a folder's __init__ has the folder's name."""
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def imports(self, *, deferred: bool) -> Iterator[tuple[int, str]]:
        """Line and name of each module of the package that this one imports; `deferred`: inside functions too."""
        for node in ast.walk(self.tree) if deferred else _at_import(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                for alias in node.names:
                    name = f"{base}.{alias.name}"
                    yield node.lineno, name if name in modules() else base


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, nothing under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _at_import(node)


@cache
def modules() -> dict[str, Module]:
    """All modules of the package by name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text()))
    return found


def naming(*dotted: str) -> dict[str, list[int]]:
    """Modules that name one of these ("os.fork", "ctypes"), with the lines: as an attribute, or by importing it."""
    found: dict[str, set[int]] = {}
    for name in dotted:
        for module, line in _named().get(name, ()):
            found.setdefault(module, set()).add(line)
    return {module: sorted(lines) for module, lines in sorted(found.items())}


@cache
def _named() -> dict[str, list[tuple[str, int]]]:
    """Where each name is named: module and line."""
    found: dict[str, list[tuple[str, int]]] = {}
    for module in modules().values():
        for node in ast.walk(module.tree):
            for name in _names(node):
                found.setdefault(name, []).append((module.name, getattr(node, "lineno", 0)))
    return found


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return {f"{node.value.id}.{node.attr}"}
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()
