"""Options of a command from declared settings: names, types, help and defaults are those of the fields."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from curvlab.fields import MISSING, Field

from .ranges import parse_range, parse_whole_numbers
from .sizes import parse_size

Command = Callable[..., Any]


def _words(text: str, option: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "SIZE": parse_size,
    "NAMES": _words,
    "N,N": parse_whole_numbers,
    "FROM:TO:N": parse_range,
}
"""By how a field says that it is written: (text, option) -> value."""


def takes(fields: Mapping[str, Field], panels: Mapping[str, Sequence[str]]) -> Callable[[Command], Command]:
    """A decorator: the command has an option for each of these fields, beside its own parameters.

    The command's first parameter is a dictionary of what was given, by field; what was not given is not in it.

    Args:
        fields: as declared, by name.
        panels: heading in the help -> names of fields.
    """

    def wrapped(command: Command) -> Command:
        first, *own = inspect.signature(command).parameters.values()
        hints = get_type_hints(command, include_extras=True)
        options = {name: _option(fields[name], panel) for panel, names in panels.items() for name in names}

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            given = {name: _parsed(fields[name], values.pop(name)) for name in options}
            return command({name: value for name, value in given.items() if value is not None}, **values)

        kind = inspect.Parameter.KEYWORD_ONLY
        made = [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in options.items()]
        rest = [one.replace(kind=kind, annotation=hints[one.name]) for one in own]
        run.__signature__ = inspect.Signature([*made, *rest])  # type: ignore[attr-defined]
        run.__annotations__ = {**options, **{name: hint for name, hint in hints.items() if name != first.name}}
        return run

    return wrapped


def _option(field: Field, panel: str) -> Any:
    written, flags = field.setting.written, [f"--{field.name.replace('_', '-')}"]
    if field.kind is bool and field.default is True:
        flags = [f"{flags[0]}/--no-{flags[0][2:]}"]
    default = "" if field.default in (None, MISSING, False, True, ()) else f" Default {field.default}."
    option = typer.Option(*flags, metavar=written, rich_help_panel=panel, help=_markup(field.setting.help + default))
    return Annotated[_kind(field) | None, option]


def _kind(field: Field) -> Any:
    if field.setting.written in PARSERS:
        return str
    origin = get_origin(field.kind)
    if origin is tuple:
        return list[get_args(field.kind)[0]]  # type: ignore[misc]
    return field.kind if origin is Literal or field.kind in (bool, int, float, str, Path) else str


def _parsed(field: Field, value: Any) -> Any:
    parser = PARSERS.get(field.setting.written or "")
    if parser is not None:
        return None if value is None else parser(value, f"--{field.name.replace('_', '-')}")
    if isinstance(value, list):
        return tuple(value) or None
    return value


def _markup(text: str) -> str:
    """Backticks in bold; square brackets are no markup."""
    return re.sub(r"`([^`]*)`", r"[bold]\1[/bold]", text.replace("[", "\\["))
