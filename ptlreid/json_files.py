"""JSON files: written atomically with a digest of their content, and read with a schema.

Any damage is one message with file, field, what was expected, and what to do: `read_json`. The schemas
are in `schemas`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ptlreid.errors import DataError
from ptlreid.file_kinds import identify, printable
from ptlreid.files import atomic_write

CONTENT = "content"  # the key that holds the digest of all others

T = TypeVar("T")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` and its digest to `path` as indented JSON, atomically.

    Raises `ValueError` for NaN and infinity.
    """
    text = json.dumps({**value, CONTENT: _digest(value)}, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as temporary:
        # Bytes of file names that are not UTF-8 become \udcXX, an escape of JSON as well.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_json(path: Path, schema: type[T], remedy: str) -> T:
    """The content of a JSON file, without its digest; `DataError` if it is damaged, edited or not as in `schema`.

    `schema`: a `TypedDict`. `remedy`: what the user can do about it, for the message.
    """
    value = _parse(read_bytes(path, remedy), str(path), remedy)
    if isinstance(value, dict) and CONTENT in value:  # files of version 0.1 have none
        expected = value.pop(CONTENT)
        if _digest(value) != expected:
            raise DataError(
                f"{path}: changed since it was written: expected content with the digest {expected!r:.40}. {remedy}"
            )
    return check_schema(value, schema, str(path), remedy)


def has_digest(path: Path) -> bool:
    """Whether an existing JSON file holds a digest of its content, as those of version 0.1 do not."""
    return CONTENT in _parse(read_bytes(path, ""), str(path), "")


def read_bytes(path: Path, remedy: str) -> bytes:
    """The bytes of a regular file; `DataError` if it cannot be read or is something else."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path}: {identify(path)}, expected a file. {remedy}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). {remedy}") from None


def parse_json(content: bytes, schema: type[T], origin: str, remedy: str) -> T:
    """The same for JSON that is a part of a file, has no digest, and is called `origin` in messages."""
    return check_schema(_parse(content, origin, remedy), schema, origin, remedy)


def check_schema(value: Any, schema: type[T], origin: str, remedy: str) -> T:
    """The same for a value that was already read from a file."""
    try:
        return _make_adapter(schema).validate_python(value)  # type: ignore[arg-type]  # types are hashable
    except ValidationError as error:
        raise DataError(f"{origin}: {_explain(error)}. {remedy}") from None


def _parse(content: bytes, origin: str, remedy: str) -> Any:
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        kind = identify(content)
        what = str(error) if kind.startswith(("JSON", "text")) else kind
        raise DataError(f"{origin}: not readable as JSON: {what}. {remedy}") from None


@functools.cache
def _make_adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _explain(error: ValidationError) -> str:
    """What is wrong and what was expected, of the first error."""
    fault = error.errors(include_url=False)[0]
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault["loc"])
    field = printable("".join(steps).removeprefix("."), 80)
    if fault["type"] == "missing":
        return f"{field} is missing"
    if fault["type"] == "extra_forbidden":
        return f"{field} is no key of this file, expected those of docs/file-formats.md"
    message = fault["msg"].replace("Input should be", "expected").replace("a valid dictionary", "a JSON object")
    expected = f"{message[0].lower()}{message[1:]}"
    value = printable(repr(fault["input"]), 40)
    return f"{field} = {value}: {expected}" if field else f"found {value}, {expected}"


def _digest(value: Mapping[str, Any]) -> str:
    """The BLAKE2b digest of all keys but `CONTENT`: of the shortest JSON in ASCII with sorted keys."""
    canonical = json.dumps(dict(value), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
