"""What a step's result depends on, as a document that people can read, and how two of them differ.

A recipe names every input that is part of a step's cache key. The last ones of each build are kept
(`store.builds`), so that a step which has to run again can say which input is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nbcontain.build.graph import Base, Operation, Step, Vertex
from nbcontain.dockerfile.checks import is_secret_name
from nbcontain.oci.digest import Digest
from nbcontain.values import asdict, dataclass, field, fields, is_dataclass, replace

_SHOWN = 60
_WORDS = {"cwd": "WORKDIR", "user": "USER", "network": "--network", "chown": "--chown", "chmod": "--chmod"}
"""How people write a field; the others go by their own names."""
_DEFAULT_SHM_BYTES = 64 << 20
"""What /dev/shm has where no --shm-size says otherwise."""
_LINK = "→ "
"""Before what a symlink says, in a recipe's `files`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The inputs of one step. Everything in it is text or a tree of texts: it is kept as JSON."""

    name: str
    """The instruction, as written."""
    stage: str
    number: int
    """Its place among the build's steps, from 1, as it is shown."""
    key: str = ""
    """The digest that its result is kept under; "" for what keeps nothing, as FROM."""
    below: str = ""
    """The chain ID that it was done on, or of FROM the image's digest."""
    others: tuple[str, ...] = ()
    """The chain IDs that it reads from."""
    fields: Mapping[str, object] = field(default_factory=dict)
    """The operation's own words, without variables."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """"ARG VERSION" or "ENV PATH" → value; what is secret-like is only a mark of its value."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path in the context → mode and content, for what is copied from there."""

    def to_json(self) -> dict[str, object]:
        """Only what is not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Recipe:
        """Raises TypeError for a document that is none."""
        known = {each.name for each in fields(cls)}
        recipe = cls(**{name: value for name, value in values.items() if name in known})  # type: ignore[arg-type]
        return replace(recipe, others=tuple(recipe.others))


def recipe_of(
    number: int, step: Step, vertex: Vertex, key: Digest | None, stacks: Sequence[str],
    files: Mapping[str, str] | None = None,
) -> Recipe:  # fmt: skip
    """The recipe of a step on these inputs, each given by its chain ID."""
    operation = vertex.operation
    if isinstance(operation, Base):
        digest = str(operation.image.digest) if operation.image else "scratch"
        return Recipe(step.name, step.stage, number, below=digest)
    own = {
        each.name: _plain(getattr(operation, each.name))
        for each in fields(operation)
        if each.compare and each.name != "env"
    }
    return Recipe(
        step.name, step.stage, number, key=str(key) if key else "", below=stacks[0], others=tuple(stacks[1:]),
        fields=own, variables=_variables(operation, step), files=dict(files or {}),
    )  # fmt: skip


def _plain(value: object) -> object:
    """A field's value as JSON, with the type of what is a value itself."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{name: _plain(each) for name, each in asdict(value).items()}}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


def _variables(operation: Operation, step: Step) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in getattr(operation, "env", ()):
        name, _, value = word.partition("=")
        found[f"{'ARG' if name in step.arguments else 'ENV'} {name}"] = masked(name, value)
    return found


def masked(name: str, value: str) -> str:
    """The value, or where the name is a secret's a mark that only tells it from others."""
    return f"•••{Digest.of(value.encode()).hex[:6]}" if is_secret_name(name) else value


# --- which step was which ---------------------------------------------------------------------


def counterparts(before: Sequence[Recipe], steps: Sequence[Step]) -> dict[int, Recipe]:
    """For the number of each step, what stood in its place the last time; nothing for a step that is new."""
    found: dict[int, Recipe] = {}
    for stage in dict.fromkeys(step.stage for step in steps):
        old = [each for each in before if each.stage == stage]
        new = [(number, step.name) for number, step in enumerate(steps, 1) if step.stage == stage]
        if [each.name for each in old] == [name for _, name in new]:
            found.update((number, was) for (number, _), was in zip(new, old, strict=True))
            continue
        from difflib import SequenceMatcher

        matcher = SequenceMatcher(None, [each.name for each in old], [name for _, name in new], autojunk=False)
        for tag, old_from, old_to, new_from, new_to in matcher.get_opcodes():
            if tag == "equal":
                found.update(
                    (number, was) for (number, _), was in zip(new[new_from:new_to], old[old_from:old_to], strict=True)
                )
            elif tag == "replace":
                for (number, name), was in zip(new[new_from:new_to], old[old_from:old_to], strict=False):
                    if _keyword(name) == _keyword(was.name):
                        found[number] = was
    return found


def _keyword(name: str) -> str:
    return name.partition(" ")[0].upper()


# --- how it differs ---------------------------------------------------------------------------


def difference(was: Recipe, now: Recipe, below: Callable[[], str]) -> str:
    """The first input that is another one, in a few words. `below` says why what it stands on is another one.

    "" where all inputs are alike: then it is the result that is gone.
    """
    if was.name != now.name:
        return f"the instruction is another, it was: {_short(was.name)}"
    return (
        _files(was.files, now.files)
        or _variables_differ(was.variables, now.variables)
        or _fields_differ(was.fields, now.fields)
        or (below() if (was.below, was.others) != (now.below, now.others) else "")
        or (_elsewhere(now) if was.key != now.key else "")
    )


def _elsewhere(now: Recipe) -> str:
    """Nothing that the recipe names is another one, and yet the key is."""
    if now.fields.get("remotes"):
        return "what its URL or repository gives is another"
    return "nbcontain itself does this step another way now"


def _files(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    changed = [path for path in sorted({*was, *now}) if was.get(path) != now.get(path)]
    if not changed:
        return ""
    # Directories change with what is in them, and are less telling.
    first = next((path for path in changed if not path.endswith("/")), changed[0])
    old, new = was.get(first), now.get(first)
    if old is None or new is None:
        said = f"{first} is {'new' if old is None else 'gone'}"
    elif new.partition(" ")[2].startswith(_LINK):
        said = f"{first} is a symlink to {new.partition(_LINK)[2]} now"
    elif old.partition(" ")[2] == new.partition(" ")[2]:
        said = f"{first} has the mode {new.partition(' ')[0]}, had {old.partition(' ')[0]}"
    else:
        said = f"{first} changed"
    more = sum(not path.endswith("/") for path in changed) - 1
    return f"{said}, and {more} more" if more > 0 else said


def _variables_differ(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    for name in [*now, *(each for each in was if each not in now)]:
        old, new = was.get(name), now.get(name)
        if old == new:
            continue
        if "•••" in (old or "")[:3] or "•••" in (new or "")[:3]:
            return f"{name} has another value"
        if old is None or new is None:
            return f"{name}={_short(new)} is new" if new is not None else f"{name} is gone"
        return f"{name} is {_short(new)!r}, was {_short(old)!r}"
    return ""


def _fields_differ(was: Mapping[str, object], now: Mapping[str, object]) -> str:
    was, now = ({**each, **_allowances(each.get("sandbox"))} for each in (was, now))
    for name in [*now, *(each for each in was if each not in now)]:
        old, new = was.get(name), now.get(name)
        if old != new and name != "sandbox":
            word = _WORDS.get(name, name.replace("_", " "))
            return f"{word} is {_short(_said(new))}, was {_short(_said(old))}"
    return ""


def _allowances(sandbox: object) -> dict[str, object]:
    """What a `Sandbox` says, by the flags that say it."""
    given = sandbox if isinstance(sandbox, Mapping) else {}
    size = given.get("shm_bytes") or _DEFAULT_SHM_BYTES
    shown = f"{size >> 20}m" if isinstance(size, int) and size % (1 << 20) == 0 else f"{size} bytes"
    return {"--add-host": given.get("hosts") or [], "--shm-size": shown, "--ulimit": given.get("ulimits") or []}


def _said(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_said(each) for each in value) or "nothing"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={_said(each)}" for name, each in value.items() if each not in ("", 0, False, None))
    return {"": "nothing", "None": "nothing"}.get(str(value), str(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
