"""A tree of an image's files: as text with lines, and as HTML whose directories open. Names are hostile."""

from __future__ import annotations

from collections.abc import Iterator

from nbcontain.anatomy import TreeAt
from nbcontain.display import html
from nbcontain.display.harmless import visible
from nbcontain.display.words import count, size
from nbcontain.store.contents import File
from nbcontain.store.file_trees import Node
from nbcontain.values import dataclass, replace

_MARKS = {"A": ("+", "added"), "C": ("~", "changed"), "D": ("−", "removed")}
_TEXT_DIRECTORY = 40
_PAGE_DEPTH = 5
_PAGE_ENTRIES = 700
_PAGE_DIRECTORY = 100


@dataclass(frozen=True, slots=True)
class FileTree:
    """How much of a tree is shown: so many levels, the largest first if `by_size`, modes and owners if `long`."""

    tree: TreeAt
    depth: int = 2
    by_size: bool = False
    long: bool = False
    all: bool = False
    """As text, all that is in a directory, however much it is."""

    def text(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()

    def records(self) -> list[dict[str, object]]:
        """Everything below, a dictionary per path."""
        base = "" if self.tree.path == "/" else self.tree.path
        found: list[dict[str, object]] = []
        for path, node in self.tree.node.walk(base):
            file = node.file
            found.append({
                "path": path, "kind": file.kind if file else "directory", "mode": file.mode if file else 0o755,
                "uid": file.uid if file else 0, "gid": file.gid if file else 0,
                "size": file.size_bytes if file else 0, "target": file.target if file else "",
            })  # fmt: skip
        return found

    # --- text ---

    def _lines(self) -> Iterator[str]:
        node = self.tree.node
        yield self._row(self.tree.path.rpartition("/")[2] or "/", "", node, self.tree.path)
        yield from self._below(node, "", "" if self.tree.path == "/" else self.tree.path, self.depth)
        entries, size_bytes = node.totals()
        yield f"{count(entries, 'entry', 'entries')} · {size(size_bytes)}"

    def _below(self, node: Node, lead: str, path: str, depth: int) -> Iterator[str]:
        if not depth:
            return
        children = self._children(node)
        rest = [] if self.all or len(children) <= _TEXT_DIRECTORY else children[_TEXT_DIRECTORY - 5 :]
        children = children[: len(children) - len(rest)]
        for place, (name, child) in enumerate(children):
            is_last = place == len(children) - 1 and not rest
            yield self._row(name, lead + ("└── " if is_last else "├── "), child, f"{path}/{name}", is_cut=depth == 1)
            yield from self._below(child, lead + ("    " if is_last else "│   "), f"{path}/{name}", depth - 1)
        if rest:
            total = size(sum(child.totals()[1] for _, child in rest))
            blank = " " * (12 + 22 * self.long + 3 * bool(self.tree.marks) - 2)
            yield f"{blank}{lead}└── … {len(rest)} more, {total}  (-a shows them)"

    def _row(self, name: str, lead: str, node: Node, path: str, *, is_cut: bool = False) -> str:
        entries, size_bytes = node.totals()
        parts = [f"{size(size_bytes):>8}"]
        if self.long:
            parts.append(_long(node.file))
        if self.tree.marks:
            change = self.tree.marks.get(path)
            parts.append(_MARKS[change.letter][0] if change else " ")
        more = f"  ({count(entries, 'entry', 'entries')})" if is_cut and entries else ""
        return "  ".join([*parts, lead + _named(name, node) + more])

    def _children(self, node: Node) -> list[tuple[str, Node]]:
        import os

        pairs = [(os.fsdecode(name), child) for name, child in sorted(node.children.items())]
        return sorted(pairs, key=lambda pair: -pair[1].totals()[1]) if self.by_size else pairs

    # --- HTML ---

    def html(self) -> str:
        """Nested directories that open; what is too much for a page is counted."""
        node = self.tree.node
        entries, size_bytes = node.totals()
        said = count(entries, "entry", "entries")
        about = html.element("span", html.escape(f"of {self.tree.name} · {said} · {size(size_bytes)}"), "nbc-about")
        title = html.element("strong", html.escape(self.tree.path), "nbc-title")
        head = html.element("div", f"{title} {about}", "nbc-head")
        budget = [_PAGE_ENTRIES]
        base = "" if self.tree.path == "/" else self.tree.path
        body = html.element("div", self._page(node, base, 0, budget) or self._leaf("", node, base), "nbc-files")
        inside = html.element("div", head, "nbc-top") + html.element("div", body, "nbc-body")
        return html.framed(inside, f"files of {self.tree.name}")

    def _page(self, node: Node, path: str, depth: int, budget: list[int]) -> str:
        drawn = []
        children = self._children(node)
        shown = children[: min(_PAGE_DIRECTORY, max(0, budget[0]))]
        budget[0] -= len(shown)
        for name, child in shown:
            below = f"{path}/{name}"
            if child.is_directory and child.children and depth + 1 < max(self.depth, _PAGE_DEPTH):
                row = html.element("summary", self._cells(name, child, below))
                inner = html.element("div", self._page(child, below, depth + 1, budget), "nbc-deeper")
                drawn.append(
                    html.opening("details", row + inner, is_open=depth + 1 < self.depth and bool(self.tree.marks))
                )
            else:
                drawn.append(self._leaf(name, child, below))
        if rest := children[len(shown) :]:
            total = sum(child.totals()[1] for _, child in rest)
            more = f"… {len(rest)} more, {size(total)}"
            drawn.append(html.element("div", html.escape(more), "nbc-file nbc-more"))
        return "".join(drawn)

    def _leaf(self, name: str, node: Node, path: str) -> str:
        return html.element("div", self._cells(name, node, path), "nbc-file")

    def _cells(self, name: str, node: Node, path: str) -> str:
        entries, size_bytes = node.totals()
        change = self.tree.marks.get(path)
        mark = html.element("b", _MARKS[change.letter][0], f"nbc-{_MARKS[change.letter][1]}") + " " if change else ""
        about = [_long(node.file)] if self.long else []
        about += [str(entries)] if entries else []
        return (
            html.element("span", mark + html.escape(_named(name, node)), "nbc-name")
            + html.element("span", html.escape("  ".join(about)), "nbc-about")
            + html.element("span", html.escape(size(size_bytes)), "nbc-num")
        )


def of_layer(tree: TreeAt) -> TreeAt:
    """The same with the marks of what is in directories that were removed whole."""
    marks = dict(tree.marks)
    for path, node in tree.node.walk():
        above = path.rpartition("/")[0]
        if above in marks and marks[above].letter == "D" and node.file is not None:
            marks.setdefault(path, replace(marks[above], path=path))
    return replace(tree, marks=marks)


def _named(name: str, node: Node) -> str:
    """A name with what it is: bin/, sh -> busybox."""
    text = visible(name)
    if node.is_directory:
        return text if text.endswith("/") else f"{text}/"
    if node.file is not None and node.file.kind == "link":
        return f"{text} -> {visible(node.file.target)}"
    if node.file is not None and node.file.kind != "file":
        return f"{text}  [{node.file.kind}]"
    return text


def _long(file: File | None) -> str:
    """As ls -l has it."""
    if file is None:
        return " " * 20
    return f"{file.permissions} {f'{file.uid}:{file.gid}':>9}"
