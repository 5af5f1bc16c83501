"""Settings, declared once: `epochs: Annotated[int | None, Setting("Passes over the training set.", FROM_ONE)] = None`.

Name, type, default, bounds, choices, help, and beside which other settings it has an effect: in a dataclass, in a
`TypedDict`, or in the signature of a constructor. The command line, TOML files, the library and the catalogue of
optimizers read them here (`fields_of`) and judge values by them (`wrong`).
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from curvlab.errors import CommandError
from curvlab.field_types import ANY, FROM_ONE, Bound, fits, shown, wanted, word

MISSING = inspect.Parameter.empty
"""The default of a field that has none."""
MANY = 30
"""So many mistakes are told at once."""


@dataclass(frozen=True)
class Setting:
    """What `Annotated` says of a field beside its type.

    Attributes:
        help: what it is, in full sentences, for help texts and reports; `backticks` around what can be typed.
        bound: of numbers, and of the numbers in a list.
        when: other field -> values beside which this one has an effect; elsewhere only its default may be given.
        check: what is wrong with a value of the right type, in words to follow "NAME is VALUE, not", or None.
        written: how a value is written on the command line (`SPEC`, `N,N`).
        default: of a `TypedDict`'s key, which has no other place for it.
        symbol: the letter that papers have for it.
        formerly: names that it had before, of which errors say what it is called now.
        of_steps: whether it is about a step's length, and says nothing of an optimizer's direction.
    """

    help: str = ""
    bound: Bound = ANY
    when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    check: Callable[[Any], str | None] | None = None
    written: str | None = None
    default: Any = MISSING
    symbol: str = ""
    formerly: tuple[str, ...] = ()
    of_steps: bool = False


@dataclass(frozen=True)
class Field:
    """A setting as declared.

    Attributes:
        name: of the field.
        kind: its type, without None and without `Annotated`; Any where nothing is said.
        optional: whether None may be given.
        default: its value where nothing is given; `MISSING` where something must be.
        setting: see `Setting`.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    setting: Setting

    @property
    def choices(self) -> tuple[Any, ...]:
        """The words of a Literal; empty for other types."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def symbol(self) -> str:
        """The letter that papers have for it, or its name."""
        return self.setting.symbol or self.name

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, one sentence, or None."""
        if value is None and (self.optional or self.kind is Any):
            return None
        if not fits(self.kind, self.setting.bound, value):
            if isinstance(value, int | float) and value > self.setting.bound.high > FROM_ONE.low:
                return f"{self.name} is {shown(value)}, more than {self.setting.bound.high:,.0f}"
            return f"{self.name} is {shown(value)}, not {wanted(self.kind, self.setting.bound)}"
        found = None if self.setting.check is None else self.setting.check(value)
        return None if found is None else f"{self.name} is {shown(value)}, not {found}"


class Declared:
    """A frozen dataclass of settings that refuses what cannot be when it is made, everything wrong in one error."""

    def __post_init__(self) -> None:
        if found := self.wrong(vars(self)):
            raise refusal(found)
        for name, field in fields_of(type(self)).items():
            if get_origin(field.kind) is tuple and isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def wrong(cls, values: Mapping[str, Any]) -> list[str]:
        """A sentence for everything that is wrong with values of this class's fields; the others have their
        defaults."""
        fields = fields_of(cls)
        given = {name for name, value in values.items() if value is not None}
        sound = {name: values[name] for name in given if fields[name].problem(values[name]) is None}
        # One mistake may be seen from two sides: it is said once.
        return list(dict.fromkeys([*wrong(fields, values), *cls.wrong_together(sound, given)]))

    @classmethod
    def wrong_together(cls, sound: Mapping[str, Any], given: Collection[str]) -> Iterable[str]:
        """For subclasses: what is wrong with values beside each other, a sentence each.

        Args:
            sound: values each of which could be.
            given: names of all that are not None.
        """
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return {name: _plain(value) for name, value in vars(self).items()}


def refusal(found: Sequence[str]) -> CommandError:
    """One error for all that is wrong."""
    if len(found) == 1:
        return CommandError(found[0])
    listed = "; ".join(f"({place}) {sentence}" for place, sentence in enumerate(found[:MANY], start=1))
    listed += f"; and {len(found) - MANY} more" if len(found) > MANY else ""
    return CommandError(f"{len(found)} things are wrong", listed)


def fields_of(owner: Any, without: frozenset[str] = frozenset()) -> Mapping[str, Field]:
    """The fields that a dataclass, a TypedDict or a class's constructor declares, by name in their order.

    `**shared` of a constructor stands for the keys of `Unpack[SomeTypedDict]`, and without such an annotation for what
    the next constructor in the line of base classes takes.

    Args:
        owner: the class.
        without: names that are no settings.
    """
    return {name: field for name, field in _all_fields(owner).items() if name not in without}


@cache
def _all_fields(owner: Any) -> dict[str, Field]:
    if dataclasses.is_dataclass(owner):
        given = {entry.name: _default(entry) for entry in dataclasses.fields(owner) if entry.init}
        return _declared(given, typing.get_type_hints(owner, include_extras=True))
    if typing.is_typeddict(owner):
        return _declared({}, typing.get_type_hints(owner, include_extras=True))
    return _of_constructor(owner.__mro__)


def wrong(fields: Mapping[str, Field], values: Mapping[str, Any]) -> list[str]:
    """A sentence for every value that cannot be, and for every one that would have no effect beside the others.

    Args:
        fields: as declared; a value of another name is not judged (`unknown` has words for it).
        values: what was given; the others have their defaults.
    """
    found = {name: said for name, value in values.items() if name in fields and (said := fields[name].problem(value))}
    idle = [said for name in values if name in fields and name not in found and (said := _idle(fields, name, values))]
    return [*found.values(), *idle]


def completed(fields: Mapping[str, Field], given: Mapping[str, Any], behind: Mapping[str, Any] = {}) -> dict[str, Any]:
    """Every field's value: as given, else as it stands in `behind` where that has an effect, else the default."""
    defaults = {name: field.default for name, field in fields.items() if field.default is not MISSING}
    return {**defaults, **in_effect(fields, given, behind), **given}


def in_effect(fields: Mapping[str, Field], given: Mapping[str, Any], behind: Mapping[str, Any]) -> dict[str, Any]:
    """What `behind` says of fields that are not given, and that have an effect beside what is."""
    joined = {**behind, **given}
    return {
        name: value
        for name, value in behind.items()
        if name in fields and name not in given and not _idle(fields, name, joined)
    }


def renamed(fields: Mapping[str, Field], name: str) -> str | None:
    """What to say of a name that a field had before: what it is called now, with its default as an example."""
    for field in fields.values():
        if name in field.setting.formerly:
            return f"it is called '{field.name}' now: write {field.name}={word(field.default)}"
    return None


def unknown(fields: Mapping[str, Field] | Iterable[str], name: str) -> str:
    """What to say after "there is no …": the new name of one that was renamed, the nearest name, or all there are."""
    if isinstance(fields, Mapping) and (said := renamed(fields, name)):
        return said
    known = list(fields)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'" if close else f"there are {', '.join(known)}"


def tupled(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with tuples in the place of lists, which JSON and TOML have where Python has tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value


def _idle(fields: Mapping[str, Field], name: str, values: Mapping[str, Any]) -> str | None:
    field, value = fields[name], values[name]
    if value is None or value == field.default:
        return None
    for other, allowed in field.setting.when.items():
        if values.get(other, fields[other].default) not in allowed:
            beside = " or ".join(f"{other}={word(one)}" for one in allowed)
            return f"{name} is {shown(value)}, which has an effect with {beside} only"
    return None


def _of_constructor(line: tuple[type, ...]) -> dict[str, Field]:
    """The fields of the first constructor in a line of classes that has one of its own."""
    place = next((i for i, one in enumerate(line) if "__init__" in vars(one)), None)
    if place is None or line[place] is object:
        return {}
    made: Any = vars(line[place])["__init__"]
    hints = _hints(made)
    found: dict[str, Field] = {}
    for name, parameter in list(inspect.signature(made).parameters.items())[1:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            unpacked = get_args(hints.get(name, Any))
            inherited = fields_of(unpacked[0]) if unpacked else _of_constructor(line[place + 1 :])
            found = {**found, **{key: field for key, field in inherited.items() if key not in found}}
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            # Where nothing is said, the default shows the type; 1 may stand for 1.0.
            shown_by = {bool: bool, int: float, float: float, str: str}.get(type(parameter.default), Any)
            found[name] = _field(name, hints.get(name, shown_by), parameter.default)
    return found


def _declared(defaults: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Field]:
    return {name: _field(name, hints[name], defaults.get(name, MISSING)) for name in defaults or hints}


class _Annotated:
    """One annotation of a function, where `typing.get_type_hints` finds it with the function's own globals."""

    def __init__(self, made: Any, annotations: Mapping[str, Any]) -> None:
        self.__annotations__ = dict(annotations)
        self.__globals__ = getattr(made, "__globals__", {})


def _hints(made: Any) -> dict[str, Any]:
    """Annotations of a constructor; without those that only a type checker could look up."""
    found: dict[str, Any] = {}
    for name, said in inspect.get_annotations(made).items():
        try:
            found |= typing.get_type_hints(_Annotated(made, {name: said}), include_extras=True)
        except (NameError, AttributeError, SyntaxError, TypeError):
            continue
    return found


def _default(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return MISSING if entry.default is dataclasses.MISSING else entry.default


def _field(name: str, hint: Any, default: Any) -> Field:
    setting = Setting()
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            setting = _over(note, setting) if isinstance(note, Setting) else setting
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = tuple(part for part in parts if part is not types.NoneType)
    kind = kinds[0] if len(kinds) == 1 else Union[kinds]  # noqa: UP007 - of a tuple
    if get_origin(kind) is Annotated:  # Annotated[…] | None
        inner = _field(name, kind, default)
        return dataclasses.replace(inner, optional=inner.optional or len(kinds) < len(parts))
    return Field(name, kind, len(kinds) < len(parts), setting.default if default is MISSING else default, setting)


def _over(setting: Setting, below: Setting) -> Setting:
    """The setting, with what it leaves open as the type it is put on has it."""
    plain = {entry.name: _default(entry) for entry in dataclasses.fields(Setting)}
    said = {name: value for name, value in vars(setting).items() if value != plain[name]}
    return dataclasses.replace(below, **said)
