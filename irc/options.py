"""Options of passes and targets: from text to typed dataclass fields and back.

A pass (or target) is a frozen dataclass, so the command line, YAML, JSON, the documentation and equality all come from
its fields. Text values are read by the field's type: `true`/`false`, integers, numbers, words, `a+b` for tuples,
`none` where the field is optional.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from irc.errors import PassOptionError


def option_types(cls: type) -> dict[str, Any]:
    """Names and types of the options of a pass or target class, in declaration order."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def build(cls: type, name: str, options: Mapping[str, Any]) -> Any:
    """An instance of `cls` with options given as text or as typed values.

    Raises:
        PassOptionError: For an unknown option, a value of the wrong type, or one the class itself refuses.
    """
    if not dataclasses.is_dataclass(cls):
        if options:
            raise PassOptionError(f"{name}: takes no options; it was given {', '.join(options)}")
        return cls()
    known = option_types(cls)
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known) or 'none'}"
            raise PassOptionError(f"{name}: has no option {key!r}; {advice}")
        values[key] = convert(value, known[key], f"{name}: option {key}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.init
        and f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise PassOptionError(f"{name}: needs option {missing[0]!r}; write {name}{{{missing[0]}=VALUE}}")
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise PassOptionError(f"{name}: {error}") from error


def convert(value: Any, wanted: Any, where: str) -> Any:
    """`value` (text or typed) as the type `wanted`.

    Raises:
        PassOptionError: If it is not one; `where` starts the message.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none" and type(None) in arguments):
            return None
        errors = []
        for argument in (a for a in arguments if a is not type(None)):
            try:
                return convert(value, argument, where)
            except PassOptionError as error:
                errors.append(error)
        others = [str(error).partition("it must be ")[2] for error in errors[1:]]
        raise PassOptionError(", or ".join([str(errors[0]), *others]))
    if origin is typing.Literal:
        for choice in arguments:
            if value == choice or str(value) == str(choice):
                return choice
        raise PassOptionError(f"{where} is {value!r}; it must be one of {', '.join(map(str, arguments))}")
    if origin in (tuple, list):
        items = (
            value.split("+") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
        )
        element = arguments[0] if arguments else str
        return tuple(convert(item, element, where) for item in items if item != "")
    if wanted is bool:
        return _bool(value, where)
    if wanted in (int, float):
        return _number(value, wanted, where)
    if wanted is str:
        return str(value)
    return value


def _bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "yes", "on", "1"):
        return True
    if str(value).lower() in ("false", "no", "off", "0"):
        return False
    raise PassOptionError(f"{where} is {value!r}; it must be true or false")


def _number(value: Any, wanted: type, where: str) -> Any:
    if isinstance(value, bool) or (wanted is int and isinstance(value, float) and not value.is_integer()):
        raise PassOptionError(f"{where} is {value!r}; it must be {'an integer' if wanted is int else 'a number'}")
    try:
        return wanted(value)
    except (TypeError, ValueError) as error:
        kind = "an integer" if wanted is int else "a number"
        raise PassOptionError(f"{where} is {value!r}; it must be {kind}") from error


def options_of(instance: Any, *, defaults: bool = False) -> dict[str, Any]:
    """The options of a pass or target that differ from their defaults (all of them with `defaults`)."""
    if not dataclasses.is_dataclass(instance):
        return {}
    result = {}
    for field in dataclasses.fields(instance):
        if not field.init:
            continue
        value = getattr(instance, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if defaults or value != default:
            result[field.name] = value
    return result


def format_value(value: Any) -> str:
    """A value as pipeline text; `convert` reads it back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return "+".join(format_value(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)


def format_call(name: str, instance: Any) -> str:
    """`name{option=value,...}` with the options that differ from their defaults."""
    options = ",".join(f"{key}={format_value(value)}" for key, value in options_of(instance).items())
    return f"{name}{{{options}}}" if options else name
