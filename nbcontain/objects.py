"""Python's objects as files, and files as Python's objects: the suffix of a file's name says how.

Tables are pandas' or polars', arrays numpy's; whichever of them is installed is imported when it is needed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any

from nbcontain.errors import Unavailable, UsageError

_WRITERS = {
    ".csv": ("to_csv", "write_csv"), ".tsv": ("to_csv", "write_csv"), ".parquet": ("to_parquet", "write_parquet"),
    ".json": ("to_json", "write_json"), ".jsonl": ("to_json", "write_ndjson"),
}  # fmt: skip
"""How a table is written, by the suffix of its name: pandas' method, then polars'."""
_TABLES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "jsonl"}
_ARRAYS = (".npy", ".csv", ".txt")
_NEEDS_A_LIBRARY = {".parquet": "tables in Parquet", ".npy": "arrays"}
_PLAIN = (dict, list, tuple, int, float, bool, type(None))


def content(name: str, value: Any) -> bytes:
    """What a file of that name has in it: text, bytes, a table, an array, JSON of plain values.

    Raises UsageError, and Unavailable where a library is missing.
    """
    match value:
        case str():
            return value.encode()
        case bytes() | bytearray() | memoryview():
            return bytes(value)
    suffix = _suffix(name)
    for method in _WRITERS.get(suffix, ()):
        if hasattr(value, method):
            return _table_bytes(value, method, suffix)
    if _is_array(value) and suffix in _ARRAYS:
        return _array_bytes(value, suffix)
    if isinstance(value, _PLAIN) and suffix == ".json":
        return json.dumps(value, ensure_ascii=False).encode()
    kind = type(value).__name__
    if any(hasattr(value, method) for methods in _WRITERS.values() for method in methods):
        raise UsageError(f"{name}: how is a {kind} to be written?", hint="Call it .csv, .parquet or .json")
    if _is_array(value):
        raise UsageError(f"{name}: how is an array to be written?", hint="Call it .npy, .csv or .txt")
    if isinstance(value, _PLAIN):
        raise UsageError(f"{name}: how is a {kind} to be written?", hint="Call it .json")
    raise UsageError(
        f"{name}: a {kind} is no file", hint="Text, bytes, a pathlib.Path, a DataFrame, an array, or values for JSON"
    )


def read(name: str, data: bytes) -> Any:
    """The object that a file of that name holds: a table, an array, values of JSON, text, else bytes.

    Where neither pandas nor polars is installed, CSV is text. Raises UsageError for what is not what its name says,
    Unavailable as `require` does.
    """
    suffix = _suffix(name)
    if suffix == ".json":
        return _understood(name, lambda: json.loads(data))
    if suffix == ".npy":
        require(name)
        numpy = import_module("numpy")
        return _understood(name, lambda: numpy.load(io.BytesIO(data), allow_pickle=False))
    if suffix in _TABLES and (suffix == ".parquet" or _library()):
        return table(name, data)
    try:
        return data if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return data


def require(name: str) -> None:
    """Raises Unavailable for a file whose object cannot be made here, by its name alone: before work that yields it."""
    suffix = _suffix(name)
    what = _NEEDS_A_LIBRARY.get(suffix, "")
    if what and not (find_spec("numpy") if suffix == ".npy" else _library()):
        module = "numpy" if suffix == ".npy" else "pandas pyarrow"
        raise Unavailable(f"{what} need {module}", why="it is not installed", hint=f"%pip install {module}")


def table(name: str, data: bytes, **how: Any) -> Any:
    """A DataFrame of a file's bytes, as the suffix of its name says; without one by what it begins with.

    `how` goes to pandas' or polars' own reader. Raises Unavailable, UsageError.
    """
    kind = _TABLES.get(_suffix(name)) or _guessed(data)
    library = _library()
    if not library:
        raise Unavailable("a DataFrame needs pandas or polars", why="neither is installed", hint="%pip install pandas")
    if _suffix(name) == ".tsv":
        how = {("sep" if library == "pandas" else "separator"): "\t", **how}
    if library == "pandas" and kind == "jsonl":
        kind, how = "json", {"lines": True, **how}
    reader = {"jsonl": "read_ndjson"}.get(kind, f"read_{kind}")
    read_as = getattr(import_module(library), reader)
    return _understood(name, lambda: read_as(io.BytesIO(data), **how))


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """Rows as a pandas DataFrame. Raises Unavailable."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise Unavailable(
            "a DataFrame needs pandas", why=str(error), hint="%pip install pandas, or take the values as they are"
        ) from error
    return pandas.DataFrame([*rows], columns=[*columns])


def _guessed(data: bytes) -> str:
    """CSV, unless it looks like JSON: one value, or one a line."""
    head = data.lstrip()[:1]
    if head == b"[":
        return "json"
    return "jsonl" if head == b"{" else "csv"


def _understood(name: str, make: Any) -> Any:
    try:
        return make()
    except ImportError as error:
        raise Unavailable(f"{name} cannot be read", why=str(error), hint="%pip install pyarrow") from error
    except Exception as error:  # each library has errors of its own for what is not of its kind
        raise UsageError(f"{name} is not what its name says", why=str(error).strip() or type(error).__name__) from error


def _library() -> str:
    return next((each for each in ("pandas", "polars") if find_spec(each)), "")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__")


def _table_bytes(value: Any, method: str, suffix: str) -> bytes:
    buffer = io.BytesIO()
    separated = "\t" if suffix == ".tsv" else ","
    match method:
        case "to_csv":
            buffer.write(value.to_csv(index=False, **({"sep": separated} if suffix == ".tsv" else {})).encode())
        case "to_json":
            lines = {"lines": True} if suffix == ".jsonl" else {}
            buffer.write(value.to_json(orient="records", **lines).encode())
        case "to_parquet":
            try:
                value.to_parquet(buffer, index=False)
            except ImportError as error:
                raise Unavailable("Parquet needs pyarrow", why=str(error), hint="%pip install pyarrow") from error
        case "write_csv":
            value.write_csv(buffer, separator=separated)
        case _:
            getattr(value, method)(buffer)
    return buffer.getvalue()


def _array_bytes(value: Any, suffix: str) -> bytes:
    numpy = import_module("numpy")
    buffer = io.BytesIO()
    if suffix == ".npy":
        numpy.save(buffer, value, allow_pickle=False)
    else:
        numpy.savetxt(buffer, value, fmt="%s", delimiter="," if suffix == ".csv" else " ")
    return buffer.getvalue()
