"""JSON from foreign hands, read so that no second reader could see something else in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from nbcontain.errors import BadDigest, BadDocument

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

    from nbcontain.oci.digest import Digest

DOCUMENT_LIMIT = 8 << 20
"""No manifest, config or index is larger, in bytes; registries take manifests of 4 MiB."""


class Fields:
    """A JSON object whose members are asked for by name and type; `place` is for messages."""

    def __init__(self, values: object, place: str) -> None:
        if not isinstance(values, Mapping):
            raise BadDocument(f"{place} must be an object")
        self.values: Mapping[str, Any] = values
        self.place = place

    def _get(self, key: str, kind: type, words: str, required: bool = False) -> Any:
        value = self.values.get(key)
        if value is None:
            if required:
                raise BadDocument(f"{self.place}.{key} is missing")
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BadDocument(f"{self.place}.{key} must be {words}")
        return value

    def text(self, key: str, *, required: bool = False) -> str:
        found: str = self._get(key, str, "text", required) or ""
        if required and not found:
            raise BadDocument(f"{self.place}.{key} is empty")
        return found

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def count(self, key: str, *, required: bool = False, default: int = 0, below: int = 1 << 63) -> int:
        value = self._get(key, int, "a number", required)
        return default if value is None else self._counted(key, value, below)

    def number(self, key: str) -> int | None:
        """Any whole number of 32 bits; None if there is none."""
        value: int | None = self._get(key, int, "a number")
        if value is not None and not -(1 << 31) <= value < 1 << 31:
            raise BadDocument(f"{self.place}.{key} must be a number of 32 bits")
        return value

    def amount(self, key: str) -> int | None:
        """A number from -1 on, which is no limit; None if there is none."""
        value: int | None = self._get(key, int, "a number")
        if value is not None and not -1 <= value < 1 << 63:
            raise BadDocument(f"{self.place}.{key} must be a number from -1 on")
        return value

    def counts(self, key: str) -> tuple[int, ...]:
        return tuple(self._counted(key, value) for value in self._get(key, list, "a list of numbers") or ())

    def _counted(self, key: str, value: object, below: int = 1 << 63) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
            raise BadDocument(f"{self.place}.{key} must be a number from 0 on")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """A list of texts; None if there is none, which is not the same as an empty one."""
        values = self._get(key, list, "a list of texts")
        if values is None:
            return None
        if not all(isinstance(value, str) for value in values):
            raise BadDocument(f"{self.place}.{key} must be a list of texts")
        return tuple(values)

    def texts_by_name(self, key: str) -> Mapping[str, str]:
        found: dict[str, str] = self._get(key, dict, "an object of texts") or {}
        if not all(isinstance(value, str) for value in found.values()):
            raise BadDocument(f"{self.place}.{key} must be an object of texts")
        return found

    def values_of(self, key: str) -> Mapping[str, Any]:
        """An object used as a set: Go's map[string]struct{}."""
        found: Mapping[str, Any] = self._get(key, dict, "an object") or {}
        return found

    def digest(self, key: str) -> Digest:
        return digest_of(self.text(key, required=True), f"{self.place}.{key}")

    def object(self, key: str, *, required: bool = False) -> Fields:
        return Fields(self._get(key, dict, "an object", required) or {}, f"{self.place}.{key}")

    def objects(self, key: str, *, required: bool = False) -> list[Fields]:
        values = self._get(key, list, "a list of objects", required) or []
        return [Fields(value, f"{self.place}.{key}[{number}]") for number, value in enumerate(values)]


def digest_of(text: str, place: str) -> Digest:
    """A digest, or BadDocument that says where it stands."""
    # Only here: a container's own processes read documents without digests, and have no use for OpenSSL.
    from nbcontain.oci.digest import Digest

    try:
        return Digest.parse(text)
    except BadDigest as error:
        raise BadDocument(f"{place} is no digest", why=error.message) from error


def load(data: bytes, name: str, *, is_image: bool = False) -> Fields:
    """Any JSON object of at most DOCUMENT_LIMIT bytes, in UTF-8, without duplicate keys or NaN.

    Half a character of UTF-16 (`\\ud800`), which nobody could write down again, is U+FFFD in what `is_image`: so it is
    to everybody who reads images with Go's encoding/json. In documents of ours it stands for a byte.
    """
    if len(data) > DOCUMENT_LIMIT:
        raise BadDocument(f"the {name} is larger than {DOCUMENT_LIMIT >> 20} MiB")
    try:
        text = data.decode("utf-8")
        values = json.loads(text, object_pairs_hook=_unique(name), parse_constant=_refuse)
        if is_image and ("\\ud" in text or "\\uD" in text):
            values = _written(values, name)
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"the {name} is not valid JSON", why=str(error)) from error
    return Fields(values, name)


def _written(value: object, name: str) -> object:
    """The same with nothing in its texts that cannot be written as UTF-8."""
    match value:
        case str():
            return "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in value)
        case list():
            return [_written(each, name) for each in value]
        case dict():
            return _unique(name)([(str(_written(key, name)), _written(each, name)) for key, each in value.items()])
    return value


def _unique(name: str) -> Callable[[list[tuple[str, object]]], dict[str, object]]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BadDocument(f"the {name} has a key twice", why="two readers could see two different images")
        return found

    return unique


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")
