"""From a TOML file, the command line and, for a run that goes on, its saved settings to one `TrainingSettings`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curvlab.bounded_text import Bounds, check_toml, read_bounded
from curvlab.errors import CommandError
from curvlab.fields import completed, refusal, tupled
from curvlab.optim.declared import settings_of
from curvlab.optim.registry import OPTIMIZERS
from curvlab.quoting import quoted
from curvlab.training.assignment import assignment
from curvlab.training.schedule import parse_schedule
from curvlab.training.settings import DEFAULT_PROBLEM, NAMES, NO_OPTIMIZER, TrainingSettings, unknown_option, wrong

Values = dict[str, Any]

BOUNDS = Bounds()
"""The limits of a configuration file, which usually has a few dozen lines."""

FREE = frozenset(
    {"epochs", "steps", "max_seconds", "max_memory", "target", "fail_if", "out", "threads", "device"}
    | {"log_every", "save_every", "snapshots", "save_factors"}
)
"""What may be another when a run goes on: how long, where, and what is written; not what is computed."""


def configured(
    options: Mapping[str, Any], assignments: Iterable[str], config: Path | None, *, trust: bool = False
) -> Values:
    """What was given, by name: the file's values under those of the command line, each checked.

    Args:
        options: of the command line; None stands for "not given".
        assignments: the texts after `--set`.
        config: a TOML file whose keys are names of `TrainingSettings`; the optimizer's settings are its table `[set]`,
            or the table `[optimizer]` beside `name`.
        trust: whether the file may name code that is imported (`architecture`).

    Raises:
        CommandError: with everything that is wrong, the file's keys and types included.
    """
    found: list[str] = []
    read = {} if config is None else _from_file(config, found)
    values = read or {}
    table = values.pop("settings", {})
    for text in assignments:
        try:
            key, value = assignment(text)
        except CommandError as error:
            found.append(str(error))
        else:
            table[key] = value
    given = {name: value for name, value in options.items() if value is not None}
    for one, other in (("epochs", "steps"), ("steps", "epochs"), ("problem", "architecture")):
        if one in given and other not in given:  # the command line's choice displaces the file's
            values.pop(other, None)
    if "architecture" in given and "problem" not in given:
        values.pop("problem", None)
    if "architecture" in values and "architecture" not in given and not trust:
        why = "importing it runs it: add --trust if you know where the file comes from, or give --architecture"
        found.append(f"--config '{config}' names code, {quoted(values.pop('architecture'))}, and {why}")
    values |= given
    if table:
        values["settings"] = table
    if found:
        # A file that cannot be read may name the optimizer: its absence is then no second mistake.
        silent = NO_OPTIMIZER if read is None else None
        raise refusal([*found, *(one for one in wrong(_with_default_problem(values)) if one != silent)])
    return values


def fresh(values: Mapping[str, Any]) -> TrainingSettings:
    """The settings of a run that begins.

    Raises:
        CommandError: with everything that is wrong.
    """
    found = wrong(_with_default_problem(values))
    name = str(values.get("optimizer"))
    if values.get("warm_start") is True and name in OPTIMIZERS and not OPTIMIZERS[name].warms:
        found.append(f"warm_start is asked for, and {name} has none")
    if found:
        raise refusal(found)
    return TrainingSettings(**values)


def continued(values: Mapping[str, Any], saved: Mapping[str, Any], used: Mapping[str, Any]) -> TrainingSettings:
    """The settings of a run that goes on: the saved ones, with what may change as it is given now.

    Args:
        values: what was given now.
        saved: `TrainingSettings.to_dict()` of the run.
        used: the optimizer's settings with which it ran, defaults included.

    Raises:
        CommandError: what was given differs in something that would make it another run, all of it named.
    """
    found = wrong({"optimizer": saved["optimizer"], **values})
    used = completed(settings_of(OPTIMIZERS.find(saved["optimizer"])), used)
    differ = [
        f"{name} {saved[name]}, not {value}"
        for name, value in values.items()
        if name not in FREE and name in saved and name != "settings" and value != saved[name]
    ]
    if parse_schedule(saved["schedule"]).knows_the_end:
        differ += [
            f"{name} {saved[name]}, not {values[name]}, on which the schedule '{saved['schedule']}' depends"
            for name in ("epochs", "steps")
            if name in values and values[name] != saved[name]
        ]
    differ += [
        f"{key}={used.get(key)}, not {value}"
        for key, value in tupled(values.get("settings", {})).items()
        if used.get(key) != value
    ]
    if differ:
        found.append(f"the run was started with {'; '.join(differ)}: use --out for another run, or --force")
    if found:
        raise refusal(found)
    merged = {**saved, **{name: value for name, value in values.items() if name in FREE}}
    for one, other in (("epochs", "steps"), ("steps", "epochs")):
        if one in values:
            merged[other] = None
    return TrainingSettings(**merged)


def folder(values: Mapping[str, Any]) -> Path:
    """Where the run that `values` mean has its results.

    Raises:
        CommandError: neither the folder nor what it would be called after is given.
    """
    if values.get("out"):
        return Path(values["out"])
    if "optimizer" not in values:
        raise CommandError("--resume does not know which run", do="give --out, or --optimizer and --problem")
    return Path(TrainingSettings(**values).folder)


def _with_default_problem(values: Mapping[str, Any]) -> Values:
    default = {} if "architecture" in values else {"problem": DEFAULT_PROBLEM}
    return {**default, **values}


def _from_file(path: Path, found: list[str]) -> Values | None:
    """The known keys of a TOML file, None where it is none; what cannot be understood is added to `found`."""
    try:
        text = read_bounded(path, BOUNDS.size).decode("utf-8")
        check_toml(text, BOUNDS)
        document = tomllib.loads(text)
    except OSError as error:
        found.append(f"--config '{path}' cannot be read: {error.strerror}")
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        found.append(f"--config '{path}' is not TOML: {error}")
        return None
    except ValueError as error:
        found.append(f"--config '{path}' is not read: {error}")
        return None
    values: Values = {}
    table: Values = {}
    for key, value in document.items():
        if key in ("set", "optimizer") and isinstance(value, dict):
            table |= {name: _setting(one) for name, one in value.items() if (key, name) != ("optimizer", "name")}
            if key == "optimizer" and "name" in value:
                values["optimizer"] = value["name"]
        elif key in NAMES and key != "settings":
            values[key] = value
        else:
            found.append(f"--config '{path}': {unknown_option(key)}")
            if difflib.get_close_matches(key, NAMES, n=1) == ["optimizer"]:
                values["optimizer"] = value  # so that its settings are looked at as well
    return {**values, "settings": table} if table else values


def _setting(value: Any) -> Any:
    """TOML has no word for "none", so that it is a text there, and no tuples."""
    return None if value == "none" else tuple(value) if isinstance(value, list) else value
