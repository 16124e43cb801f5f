"""Views as pictures: which state, which words, which lines – for builds, attached runs and containers."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.display import html, words
from nbcontain.display.ansi import Line
from nbcontain.display.harmless import visible
from nbcontain.display.html import Picture, Since
from nbcontain.display.meters import Meters, meters_html, meters_text
from nbcontain.display.text import notice_lines, one_line, summary, tail_lines
from nbcontain.display.transfers import pace, total_text
from nbcontain.display.view import TaskView, View
from nbcontain.events import OUT_OF_MEMORY, Notice, TaskId
from nbcontain.values import dataclass

_RUNNING_LINES = 5
_FAILED_LINES = 20
_DONE_LINES = 100
_BUILD_ROWS = 200
_TEXT_LINES = 10
_LOG_CHARACTERS = 65_536
_LIVE_LINES, _LIVE_CHARACTERS = 20, 4_000
"""The same while a build goes on, which is drawn again and again."""
_BY_SIGNAL = (130, 137, 143)
"""128 + INT, KILL, TERM: somebody wanted it to end, which is no failure of its own."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the states of one kind of work are called."""

    running: str
    done: str


WORDS = {
    "build": Words("building", "built"),
    "run": Words("running", "exited"),
    "wait": Words("waiting for", "waited for"),
    "pull": Words("pulling", "pulled"),
    "push": Words("pushing", "pushed"),
    "import": Words("importing", "imported"),
    "convert": Words("converting", "converted"),
    "up": Words("starting", "started"),
}


@dataclass(frozen=True, slots=True)
class Port:
    """A port of this machine that leads into a container."""

    address: str
    number: int
    inside: str
    """As in 80/tcp."""

    def html(self) -> str:
        """A link, for what a browser could open; the page takes it away where it would lead to another machine."""
        shown = html.escape(f"{self.number} → {self.inside}")
        if not self.inside.endswith("/tcp"):
            return html.element("span", shown)
        address = "127.0.0.1" if self.address in ("0.0.0.0", "::", "") else self.address
        where = f"[{address}]" if ":" in address else address
        return html.element("a", shown, "nbc-port", href=f"http://{where}:{self.number}/", target="_blank",
                            rel="noopener noreferrer")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """What a container's card says beside its journal."""

    id: str
    name: str
    image: str
    status: str
    """created, running, paused, restarting, exited, lost or removed."""
    pid: int | None = None
    network: str = ""
    command: str = ""
    isolation: str = ""
    ports: tuple[Port, ...] = ()
    meters: Meters = Meters()
    exit_code: int | None = None
    """Of what has ended."""
    oom_killed: bool = False
    """There was no memory left for it within its limit."""
    memory_peak: int = 0
    memory_limit: int | None = None
    """Bytes, of what has ended."""


def steps_picture(view: View, now: float, kind: str = "build", title: str = "") -> Picture:
    """A build, or anything else made of steps: a row per step, the running one's last lines."""
    root = view.root()
    if root is None:
        return Picture(title or kind, html.heading("waiting", "waiting", title or kind, ()))
    name = title or _without_verb(one_line(root.name), kind)
    word = _word(root, kind)
    steps = view.children(root.task)
    over = sum(step.is_finished for step in steps)
    is_over = root.is_finished
    counted = summary(view, root).replace(", ", " · ")
    about = [
        counted if is_over or not steps else f"{over} of {words.count(len(steps), 'step')}",
        _progress_text(root) if not steps else "",
        total_text(view, root, now) if kind in ("pull", "push") else "",
        _took(root, now),
        one_line(root.detail) if is_over else "",
    ]
    body = ""
    if steps:
        body += html.progress(over, len(steps)) if not is_over else ""
        body += _steps_table(view, root, now)
    elif not is_over and root.total:
        body += html.progress(root.done, root.total)
    body += _remarks(root)
    text = " ".join(part for part in (word, name, "·", " · ".join(str(a) for a in about if a)) if part).rstrip(" ·")
    return Picture(f"{kind} {name}: {word}", html.heading(root.state, word, name, about), body=body,
                   text=_with_steps_text(view, root, text))  # fmt: skip


def begun_picture(kind: str, name: str, outcome: str = "", about: str = "") -> Picture:
    """Work of which nothing is known yet; or that ended before anything was, with an outcome that is not "done"."""
    word = outcome or ("reading" if kind == "work" else "starting")
    word = _of_an_interrupt(word, kind)
    title = _without_verb(one_line(name), kind)
    head = html.heading(outcome or "waiting", word, title, (one_line(about),) if about else ())
    return Picture(f"{kind} {title}: {word}", head, text=" ".join(filter(None, (word, title, one_line(about)))))


def run_picture(
    view: View, now: float, title: str = "", facts: Sequence[tuple[str, str]] = (), *, is_interrupted: bool = False
) -> Picture:
    """The slim card over an attached run, whose output stands below it. One that somebody had enough of says so,
    however its program took that."""
    root = view.root()
    name = title or (one_line(root.name) if root else "")
    if root is None:
        return Picture(f"container {name}", html.heading("waiting", "starting", name, ()),
                       body=html.facts(facts))  # fmt: skip
    state, word = _run_state(root)
    if root.state == "cancelled" or (is_interrupted and root.is_finished):
        state, word = "cancelled", "interrupted"
    lines = words.count(root.line_count, "line") if root.line_count else ""
    about = [_took(root, now), lines]
    if root.is_finished and root.detail:
        about.append(one_line(root.detail))
    endings = _endings(root)
    # What was remarked on the way to it is nobody's, since nothing had begun yet.
    before = view.tasks.get("", root)
    remarked = [*(_notices(before) if before is not root else ()), *_notices(root)]
    body = html.notes((), endings) + html.facts(facts) + html.notes(remarked)
    if not root.is_finished:
        body += _steps_table(view, root, now) if view.children(root.task) else ""
    text = " · ".join(str(part) for part in (f"{word} {name}".strip(), *about) if part)
    text = "\n".join((text, *endings))
    return Picture(f"container {name}: {word}", html.heading(state, word, name, about), body=body, text=text)


def container_picture(
    container: ContainerFacts, view: View, now: float, messages: Sequence[str] = ()
) -> Picture:
    """A container as it is now: state, uptime, what it uses, its last lines."""
    root = view.tasks.get(container.id) or view.root()
    state, word = container_state(container, root)
    is_up = state in ("up", "paused")
    since: Since | str = ""
    if root is not None and root.started_at is not None:
        if is_up:
            since = Since(root.started_at, now, "up ")
        elif root.finished_at is not None:
            since = f"ran {words.duration(root.seconds(now))}"
    about = [one_line(container.image), since]
    pairs = [
        ("id", container.id[:12]),
        ("pid", str(container.pid) if container.pid and is_up else ""),
        ("network", container.network),
        ("command", one_line(container.command, 120)),
        ("isolation", container.isolation),
        ("started", f"{root.runs} times" if root is not None and root.runs > 1 else ""),
    ]
    name = visible(container.name)
    said = [*(_notices(root) if root else ()), *messages]
    endings = _endings(root) if root is not None and not is_up else []
    shown = _within(root.tail) if root is not None else ()
    hidden = root.line_count - len(shown) if root is not None else 0
    if root is not None:
        shown += root.begun_lines()
    text = [" · ".join(str(part) for part in (f"{word} {name}", *about, f"id {container.id[:12]}") if part)]
    meters = meters_text(container.meters, is_over=not is_up)
    text += [meters] if meters else []
    text += [f"ports {', '.join(f'{each.number} → {each.inside}' for each in container.ports)}"] * bool(container.ports)
    text += [*endings, *said]
    text += [f"  {line}" for line in (tail_lines(root, _TEXT_LINES) if root is not None else ())]
    return Picture(
        f"container {name}: {word}",
        html.heading(state, word, name, about),
        meters=meters_html(container.meters, is_over=not is_up),
        body=html.notes((), endings) + _ports(container.ports if is_up else ()) + html.facts(pairs) + html.notes(said),
        log=shown,
        log_label=f"last lines of {name}",
        hidden_lines=hidden,
        whole_log=f"%container logs {name}",
        text="\n".join(text),
    )


def _ports(ports: Sequence[Port]) -> str:
    drawn = " ".join(each.html() for each in ports)
    return html.element("div", f"{html.element('span', 'ports', 'nbc-quiet')} {drawn}", "nbc-facts") if drawn else ""


def _took(task: TaskView, now: float) -> Since | str:
    """How long it took; of what goes on a time that passes."""
    if task.started_at is not None and task.finished_at is None:
        return Since(task.started_at, now)
    return words.duration(task.seconds(now))


# --- states -----------------------------------------------------------------------------------


def _word(root: TaskView, kind: str) -> str:
    known = WORDS.get(kind, Words("running", "done"))
    word = {"running": known.running, "done": known.done, "cached": known.done}.get(root.state, root.state)
    return _of_an_interrupt(word, kind)


def _of_an_interrupt(word: str, kind: str) -> str:
    """What somebody had enough of: a build is cancelled, by a button of that name; a program is interrupted."""
    return "interrupted" if word == "cancelled" and kind in ("run", "exec", "work", "wait") else word


def _run_state(root: TaskView) -> tuple[str, str]:
    """The look of an attached run and its word: an exit code is said, whichever it is."""
    if root.exit_code is not None and root.state in ("done", "failed"):
        return _exited(root.exit_code, any(notice.message == OUT_OF_MEMORY for notice in root.notices))
    return ("up" if root.state == "running" else root.state), root.state


def _ended(container: ContainerFacts) -> tuple[str, str]:
    """The look and the word of what has ended, as its supervisor wrote it down."""
    code = container.exit_code
    return ("done", "exited") if code is None else _exited(code, container.oom_killed)


def _exited(code: int, was_out_of_memory: bool) -> tuple[str, str]:
    if was_out_of_memory:
        return "failed", f"exited {code}, out of memory"
    return ("done" if code == 0 else "cancelled" if code in _BY_SIGNAL else "failed"), f"exited {code}"


def container_state(container: ContainerFacts, root: TaskView | None) -> tuple[str, str]:
    """The engine's word where it and the journal differ, as between a death and its record."""
    if container.status == "removed":
        return "gone", "removed"
    if container.status == "paused":
        return "paused", "paused"
    if container.status == "running" and (root is None or not root.is_finished):
        return "up", "running"
    if container.status == "exited" and container.exit_code is not None:
        return _ended(container)
    if root is not None and root.is_finished:
        if root.state in ("lost", "cancelled"):
            return root.state, root.state
        return _run_state(root)
    return {"running": ("up", "running"), "created": ("waiting", "created"), "exited": _ended(container)}.get(
        container.status, ("lost", container.status)
    )


def _within(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """The last of these lines that have no more characters together than a saved notebook should hold."""
    left = _LOG_CHARACTERS
    for number, line in enumerate(reversed(lines)):
        left -= sum(len(run.text) for run in line.runs)
        if left < 0:
            return lines[len(lines) - number :]
    return lines


def _without_verb(name: str, kind: str) -> str:
    return name.removeprefix(f"{kind} ") or kind


def _notices(task: TaskView) -> list[str]:
    return [_said_of(notice) for notice in task.notices if not notice.kind][-5:]


def _endings(task: TaskView) -> list[str]:
    """Why it ended, of its last run, where that was said."""
    return [_said_of(notice) for notice in task.notices if notice.kind == "ending"][-1:] if task.is_finished else []


def _said_of(notice: Notice) -> str:
    said, *hint = notice_lines(notice)
    return " – ".join((said.partition(": ")[2], *hint))


def _remarks(root: TaskView) -> str:
    """Notes, then BuildKit's warnings, then our hints: these folded away, for whoever wants to know."""
    warnings = [each for each in root.notices if each.kind == "warning"]
    hints = [each for each in root.notices if each.kind == "hint"]
    marked = html.element("span", "warning", "nbc-state nbc-is-cancelled")
    drawn = "".join(html.element("li", f"{marked} {html.escape(_said_of(each))}") for each in warnings)
    body = html.notes(_notices(root)) + (html.element("ul", drawn, "nbc-notes") if drawn else "")
    if hints:
        mark = html.element("span", words.count(len(hints), "hint"), "nbc-state nbc-is-running")
        head = html.element("summary", f"{mark} for this Dockerfile")
        body += html.element("details", head + html.notes([_said_of(each) for each in hints]), "nbc-hints")
    return body


def _remarks_text(root: TaskView) -> list[str]:
    """The same for who reads the card as text: hints by their names."""
    lines = [f"  warning: {_said_of(each)}" for each in root.notices if each.kind == "warning"]
    if hints := [each.message for each in root.notices if each.kind == "hint"]:
        lines.append(f"  {words.count(len(hints), 'hint')}: {', '.join(map(_rule_and_line, hints))}")
    return lines


def _rule_and_line(message: str) -> str:
    name, _, rest = message.partition(": ")
    return visible(f"{name} {rest[rest.rfind('(') :]}" if rest.endswith(")") else name)


# --- steps ------------------------------------------------------------------------------------


def _steps_table(view: View, root: TaskView, now: float) -> str:
    """A row per step, the nested ones after theirs."""
    steps = list(view.below(root.task))[:_BUILD_ROWS]
    kept = _kept_output([step for _, step in steps], is_live=not root.is_finished)
    rows = [_step_row(depth, step, now, kept.get(step.task, ())) for depth, step in steps]
    titles = "".join(
        html.element("th", title, scope="col") for title in ("state", "step", "size", "time")
    )
    head = html.element("thead", html.element("tr", titles), "nbc-hidden")
    return html.element("table", head + "\n" + html.element("tbody", "\n".join(rows)), "nbc-steps")


def _kept_output(steps: Sequence[TaskView], *, is_live: bool) -> dict[TaskId, tuple[Line, ...]]:
    """What those that went well have said, the last lines of each: together no more than a saved log has, and much less
    while it is live. The last steps' before the first ones'."""
    left, lines_each = (_LIVE_CHARACTERS, _LIVE_LINES) if is_live else (_LOG_CHARACTERS, _DONE_LINES)
    kept = {}
    for step in reversed(steps):
        lines: list[Line] = []
        for line in reversed(step.tail[-lines_each:] if step.state == "done" else ()):
            left -= sum(len(run.text) for run in line.runs)
            if left < 0:
                break
            lines.append(line)
        if lines:
            kept[step.task] = tuple(lines[::-1])
        if left < 0:
            break
    return kept


def _step_row(depth: int, step: TaskView, now: float, kept: Sequence[Line] = ()) -> str:
    """A step, with what it said: the last lines of one that goes on or failed, and folded away what it has `kept`."""
    name = html.escape(one_line(step.name, 400))
    inside = html.element("span", name, "nbc-deep" if depth else "")
    if kept:
        said = html.element("span", words.count(step.line_count, "line"), "nbc-count")
        hidden = step.line_count - len(kept)
        more = html.element("div", f"… {words.count(hidden, 'earlier line')}", "nbc-more") if hidden else ""
        folded = html.element("summary", f"{inside} {said}") + more + html.lines(kept)
        inside = html.element("details", folded, "nbc-output")
    inside += "".join(html.element("span", html.escape(text), "nbc-why") for text in _said(step))
    if step.state == "failed" and step.detail:
        inside += html.element("span", html.escape(one_line(step.detail)), "nbc-why nbc-why-failed")
    last = {"running": _RUNNING_LINES, "failed": _FAILED_LINES, "cancelled": _RUNNING_LINES}.get(step.state, 0)
    shown = (*step.tail, *step.begun_lines())[-last:] if last else ()
    if step.state == "running" and step.unit == "bytes" and step.total:
        inside += html.progress(step.done, step.total)
    size = words.size(step.size_bytes) if step.size_bytes else _progress_text(step, now)
    if step.state == "cached" and step.unit == "bytes" and step.detail:
        # A layer that nobody had to fetch.
        size = one_line(step.detail)
    time = _took(step, now) if step.state not in ("waiting", "cached") else ""
    cells = [
        html.state_mark(step.state, step.state, "td"),
        html.element("th", inside, "nbc-name", scope="row"),
        html.element("td", html.escape(size), "nbc-num nbc-size"),
        html.element("td", time.html() if isinstance(time, Since) else html.escape(time), "nbc-num"),
    ]
    row = html.element("tr", "".join(cells), f"nbc-step-{step.state}")
    if shown:
        said = html.element("td", html.lines(shown, step.state), colspan="3")
        row += html.element("tr", f"<td></td>{said}", "nbc-said")
    return row


def _said(step: TaskView) -> list[str]:
    """Why a step was not taken from the cache, and its notices."""
    return [*([one_line(words.reason(step.why))] if step.why else []), *_notices(step)]


def _progress_text(task: TaskView, now: float | None = None) -> str:
    if not task.done and not task.total:
        return ""
    if task.unit == "bytes":
        done, total = words.size(task.done), words.size(task.total)
    else:
        done, total = words.count(task.done, task.unit.removesuffix("s")), str(task.total or "")
    if not total or task.is_finished:
        return done
    if task.state == "waiting":
        return total
    if now is None or task.unit != "bytes":
        return f"{done} of {total}"
    fresh = task.done - task.done_before
    return " · ".join((f"{done} of {total}", *pace(task.seconds(now), fresh, (task.total or 0) - task.done)))


def _with_steps_text(view: View, root: TaskView, first: str) -> str:
    """The plain text of the card: a line per step with its state in words."""
    lines = [first]
    for depth, step in list(view.below(root.task))[:_BUILD_ROWS]:
        took = words.duration(step.seconds(view.time)) if step.state not in ("waiting", "cached") else ""
        figures = ", ".join(part for part in (words.size(step.size_bytes) if step.size_bytes else "", took) if part)
        mark = html.GLYPHS[step.state]
        line = f"  {mark} {step.state:<9} {'  ' * depth}{one_line(step.name, 100)}"
        lines.append(f"{line}  ({figures})" if figures else line)
        lines += [f"      {text}" for text in _said(step)]
        if step.state == "failed":
            lines += [f"      {text}" for text in tail_lines(step, _FAILED_LINES)]
    return "\n".join([*lines, *_remarks_text(root)])
