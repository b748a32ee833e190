"""What is wrong with a value, in plain words: which field, and what is allowed there.

msgspec's own words are a programmer's (``Expected `str` matching regex ...``) and do not tell the
values that a choice has. Values are not repeated: they may be secrets.
"""

import functools
import re
from typing import Any, Final

import msgspec
from msgspec import inspect

from api.problems import FieldError

_PATH: Final = re.compile(r" - at `(?:key in )?\$((?:[.\[][^`]*)?)`$")
_UNKNOWN: Final = re.compile(
    r"Object contains unknown field `(.*?)`(?: - at `\$([^`]*)`)?", re.DOTALL
)
_MISSING: Final = re.compile(r"Object missing required field `([^`]+)`")
_TYPES: Final = re.compile(r"Expected `[^`]+`, got `(\w+)`")
_OWN: Final = ("Expected ", "Invalid ", "Object ", "Integer ", "Number ")
"""How msgspec's texts begin; any other is that of a type which checks itself."""
_STEP: Final = re.compile(r"\.([^.\[]+)|\[[^\]]*\]")
_ODD: Final = re.compile(r"[^\x20-\x7e]")

NAME_MAX: Final = 60
"""Characters of a field's name that are repeated, when it is the caller's invention."""

_GIVEN: Final = {
    "str": "a text", "int": "a whole number", "float": "a number with a fraction",
    "bool": "true or false", "null": "null", "array": "a list", "object": "an object",
}  # fmt: skip


def explain(
    error: msgspec.ValidationError, kind: Any, *, name: str = "", is_text: bool = False
) -> FieldError:
    """What is wrong with a value of this type. ``name`` is the value's own, if it has one.

    ``is_text``: every value came as a text, as in a query, and none is null. A message continues
    the field's name: ``limit`` ``has to be a whole number from 1 to 1000``.
    """
    text, root = str(error), _plain(_type_info(kind))
    if unknown := _UNKNOWN.fullmatch(text):
        place = _follow(root, unknown[2] or "")
        known = ", ".join(_names(place))
        says = f"is not known here: there is {known}" if known else "is not known here"
        return FieldError(_join(unknown[2] or "", show_name(unknown[1])), says)
    found = _PATH.search(text)
    path, text = (found[1], text[: found.start()]) if found else ("", text)
    if missing := _MISSING.fullmatch(text):
        place = _follow(root, f"{path}.{missing[1]}")
        says = f"is missing: it has to be {_allowed(place)}"
        return FieldError(_join(path, missing[1]), says)
    field = path.removeprefix(".") or name
    if not text.startswith(_OWN):
        return FieldError(field, text)
    allowed = _allowed(_follow(root, path))
    if is_text:
        return FieldError(field, f"has to be {allowed.removesuffix(', or null')}")
    types = _TYPES.fullmatch(text)
    given = f", not {_GIVEN.get(types[1], types[1])}" if types else ""
    return FieldError(field, f"has to be {allowed}{given}")


def show_name(name: str) -> str:
    """A name that a caller has invented, fit to be shown."""
    return _ODD.sub("?", name[:NAME_MAX]) or "''"


@functools.cache
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)  # one of those that the routes' signatures name


def _plain(node: inspect.Type) -> inspect.Type:
    """Without what is said beside a type, unless that is how to call it."""
    while isinstance(node, inspect.Metadata) and "words" not in (node.extra or {}):
        node = node.type
    return node


def _follow(node: inspect.Type, path: str) -> inspect.Type:
    """The type at a path such as ``.subscribe[0].account_id``."""
    for step in _STEP.finditer(path):
        node = _plain(node)
        if isinstance(node, inspect.UnionType):
            inner = [_plain(one) for one in node.types if not isinstance(one, inspect.NoneType)]
            node = inner[0]
        if isinstance(node, inspect.StructType):
            # a path that leads nowhere was forged, in the name of a field
            node = next((one.type for one in node.fields if one.encode_name == step[1]), node)
        elif isinstance(node, inspect.ListType):
            node = node.item_type
        elif isinstance(node, inspect.DictType):
            node = node.value_type
    return _plain(node)


def _names(node: inspect.Type) -> list[str]:
    return [each.encode_name for each in getattr(node, "fields", ())]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".removeprefix(".")


def _allowed(node: inspect.Type) -> str:
    """What a value of this type has to be."""
    node = _plain(node)
    match node:
        case inspect.Metadata():
            return str((node.extra or {})["words"])
        case inspect.UnionType():
            known = [one for one in node.types if not isinstance(one, inspect.NoneType)]
            or_null = ", or null" if len(known) < len(node.types) else ""
            return " or ".join(map(_allowed, known)) + or_null
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, node.values))}"
        case inspect.IntType():
            return f"a whole number{_bounds(node.ge, node.le)}"
        case inspect.FloatType():
            return f"a number{_bounds(node.ge, node.le)}"
        case inspect.StrType():
            return f"a text{_bounds(node.min_length, node.max_length, ' characters')}"
        case inspect.ListType():
            return f"a list{_bounds(node.min_length, node.max_length, ' values')}"
        case inspect.StructType():
            return f"an object with {', '.join(_names(node))}"
    return _WORDS.get(type(node), "something else")


_WORDS: Final[dict[type[inspect.Type], str]] = {
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "a time with its offset, such as 2026-08-03T09:15:00+05:30",
    inspect.DateType: "a date, such as 2026-08-03",
    inspect.DictType: "an object",
    inspect.AnyType: "any value",
}


def _bounds(least: float | None, most: float | None, unit: str = "") -> str:
    link = " of" if unit else " from"
    if most is None:
        return "" if least is None else f"{link} {least:g}{unit} or more"
    if least is None:
        return f" of at most {most:.0f}{unit}"
    return f"{link} {least:g} to {most:.0f}{unit}"
