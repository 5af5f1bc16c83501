"""Gates: expressions over a result's JSON that decide whether a build may pass (`--fail-if`); walked, never executed.

An expression compares numbers (`< <= > >= == !=`), which are paths, literals (`1e8`, `inf`) or arithmetic (`+ - * /`)
on them, and joins comparisons by `and`, `or`, `not` and brackets:

    coverage.analyzed < 0.9 * coverage.parameters
    fc1.kfac.kronecker.condition_number > 1e12
    any.moments.dead > 0 and not all.weights.stable_rank > 2

A path is what the JSON holds, joined by dots. A layer is found by its name (dots in it are fine), a place in a list
by its number (`fc1.tnt.modes.0.rank`). A name is quoted when it is a word of this language or has other characters
than letters, digits, `_` and dots: `"conv-1".weights.rank`, `any."block-fisher".block.rank`. A comparison with
`any.PATH` holds when it is true in at least one layer, with `all.PATH` when it is true in every layer; layers that have
no such number are left out. Some analyses have rows of their own, such as the matrices that FOP has learned:
`any.fop.PATH` and `all.fop.PATH` are about every row, beside what else its layer has, and `fc1.fop.PATH` is about the
first of a layer, as in the CSV.

Null: a condition number is null because it is infinite, so it counts as infinity (unless the rank beside it is null
too: then it was not computed). Any other null, and a path that leads nowhere, is an error and never a silent pass; so
is `any` or `all` when no layer at all has the number.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from curvlab.document.paths import PART, NoNumber, Path, parse_path
from curvlab.errors import CommandError

Document = Mapping[str, Any]
Layer = Mapping[str, Any] | None

_COMPARE: Mapping[type[ast.cmpop], tuple[str, Callable[[float, float], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_NUMBER = r"(?<![\w.])(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|\b(?:and|or|not|inf)\b(?!\.)"
_PATH = re.compile(rf"(?P<kept>{_NUMBER})|(?:{PART})(?:\.(?:{PART}))*")
_LONGEST = 500
"""Characters of one expression; a longer one is a mistake, and could exhaust the stack."""


@dataclass(frozen=True)
class Verdict:
    """Whether an expression holds, and the comparisons that decided it with their values ("fc1: 3e+13 > 1e+12")."""

    holds: bool
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """A parsed expression: its text, its tree, and the paths that stand in the tree as names."""

    text: str
    tree: ast.expr
    paths: Mapping[str, Path]

    def check(self, document: Document) -> Verdict:
        """The verdict on a result's JSON dictionary.

        Raises:
            CommandError: when a path gives no number (see the module's text).
        """
        evidence: list[str] = []
        try:
            holds = self._holds(self.tree, _with_first_rows(document), evidence)
        except NoNumber as reason:
            raise CommandError(f"the gate '{self.text}' cannot be decided", str(reason)) from reason
        return Verdict(holds, tuple(evidence))

    def _holds(self, node: ast.expr, document: Document, evidence: list[str]) -> bool:
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(self._holds(value, document, evidence) for value in node.values)
            case ast.BoolOp():
                return any(self._holds(value, document, evidence) for value in node.values)
            case ast.UnaryOp():
                return not self._holds(node.operand, document, evidence)
            case ast.Compare():
                return self._compared(node, document, evidence)
        raise AssertionError(node)

    def _compared(self, node: ast.Compare, document: Document, evidence: list[str]) -> bool:
        """One comparison, in the layer its quantifier binds; what is added to `evidence` is what decided."""
        quantifier, rows = _quantifier(node, self.paths), document["layers"]
        bound = {path.keys[0] for path in _paths(node, self.paths) if path.quantifier}
        for key in _tables(document).keys() & bound:
            rows = _rows(document, key)
        outcomes: list[tuple[bool, str]] = []
        reasons: list[str] = []
        for layer in rows if quantifier else (None,):
            try:
                holds, shown = self._compared_in(layer, node, document)
            except NoNumber as reason:
                reasons.append(str(reason))
            else:
                outcomes.append((holds, f"{layer['name']}: {shown}" if layer else shown))
        if not outcomes:
            raise NoNumber(reasons[0] if reasons else "there is no layer")
        wanted = quantifier != "all"
        decisive = [shown for holds, shown in outcomes if holds is wanted]
        evidence.extend(decisive)
        return bool(decisive) is wanted

    def _compared_in(self, layer: Layer, node: ast.Compare, document: Document) -> tuple[bool, str]:
        values = [self._number(side, layer, document) for side in (node.left, *node.comparators)]
        symbols, relations = zip(*(_COMPARE[type(op)] for op in node.ops), strict=True)
        holds = all(relation(a, b) for relation, a, b in zip(relations, values, values[1:], strict=False))
        shown = [f"{values[0]:g}", *(f"{symbol} {b:g}" for symbol, b in zip(symbols, values[1:], strict=True))]
        return holds, " ".join(shown)

    def _number(self, node: ast.expr, layer: Layer, document: Document) -> float:
        match node:
            case ast.Constant():
                return float(node.value)  # type: ignore[arg-type]
            case ast.Name():
                return math.inf if node.id == "inf" else self.paths[node.id].number(document, layer)
            case ast.UnaryOp():
                return -self._number(node.operand, layer, document)
            case ast.BinOp():
                left, right = self._number(node.left, layer, document), self._number(node.right, layer, document)
                try:
                    value = _ARITHMETIC[type(node.op)](left, right)
                except (ZeroDivisionError, OverflowError) as error:
                    raise NoNumber(f"arithmetic on {left:g} and {right:g} fails: {error}") from error
                if math.isnan(value):
                    raise NoNumber(f"arithmetic on {left:g} and {right:g} gives no number")
                return value
        raise AssertionError(node)


def parse(text: str) -> Gate:
    """The gate that `text` writes.

    Raises:
        CommandError: when it is not an expression of this language.
    """
    paths: dict[str, Path] = {}

    def stand_in(match: re.Match[str]) -> str:
        if match["kept"]:
            return match[0]
        name = f"_{len(paths)}"
        paths[name] = parse_path(match[0])
        return f" {name} "  # apart from its neighbours: two paths side by side must not become one name

    if len(text) > _LONGEST:
        raise CommandError(f"a gate of {len(text)} characters", f"at most {_LONGEST} are read")
    try:
        source = _PATH.sub(stand_in, text).strip()
        if "#" in source:
            raise ValueError("'#' means nothing here")
        tree = ast.parse(source, mode="eval").body
        _check_fact(tree, paths)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        do = "write a comparison such as 'any.moments.dead > 0' or 'coverage.analyzed < 0.9 * coverage.parameters'"
        raise CommandError(f"the gate '{text}' is not an expression", str(error.args[0]), do) from error
    return Gate(text, tree, paths)


def _check_fact(node: ast.expr, paths: Mapping[str, Path]) -> None:
    """ValueError unless `node` is built of comparisons, `and`, `or`, `not` alone."""
    match node:
        case ast.BoolOp():
            for value in node.values:
                _check_fact(value, paths)
        case ast.UnaryOp(op=ast.Not()):
            _check_fact(node.operand, paths)
        case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
            for side in (node.left, *node.comparators):
                _check_number(side)
            _quantifier(node, paths)
        case _:
            raise ValueError("it compares nothing")


def _check_number(node: ast.expr) -> None:
    """ValueError unless `node` is built of paths, numbers and arithmetic alone."""
    match node:
        case ast.Constant(value=int() | float()) | ast.Name():
            pass
        case ast.UnaryOp(op=ast.USub()):
            _check_number(node.operand)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            _check_number(node.left)
            _check_number(node.right)
        case _:
            raise ValueError("only numbers, paths and + - * / can be compared")


def _quantifier(node: ast.Compare, paths: Mapping[str, Path]) -> str:
    """The one quantifier among a comparison's paths, or ""; ValueError when both are there."""
    found = {path.quantifier for path in _paths(node, paths)} - {""}
    if len(found) > 1:
        raise ValueError("one comparison cannot be about any layer and about all layers")
    return found.pop() if found else ""


def _paths(node: ast.Compare, paths: Mapping[str, Path]) -> list[Path]:
    """The paths in a comparison."""
    return [paths[part.id] for part in ast.walk(node) if isinstance(part, ast.Name) and part.id in paths]


def _tables(document: Document) -> dict[str, list[Mapping[str, Any]]]:
    """Key -> rows, for every list of rows in the document that belong to layers by their name, the layers aside."""
    lists = {key: value for key, value in document.items() if key != "layers" and isinstance(value, list)}
    return {key: rows for key, rows in lists.items() if all(isinstance(row, Mapping) and "name" in row for row in rows)}


def _with_first_rows(document: Document) -> Document:
    """The document whose layers have the first row of theirs under the key of each analysis with rows of its own."""
    first = {key: {row["name"]: row for row in reversed(rows)} for key, rows in _tables(document).items() if rows}
    if not first:
        return document
    layers = [
        {**layer, **{key: rows.get(layer["name"]) for key, rows in first.items()}} for layer in document["layers"]
    ]
    return {**document, "layers": layers}


def _rows(document: Document, key: str) -> list[Mapping[str, Any]]:
    """The rows of an analysis that has its own, each with what else its layer has; a row goes by its parameter's name
    where it has one, since a layer may have several."""
    layers = {layer["name"]: layer for layer in document["layers"]}
    rows = _tables(document)[key]
    if not rows:
        raise NoNumber(f"'{key}' has no rows: it found nothing in this model, or was not asked for")
    return [{**layers.get(row["name"], {}), "name": row.get("parameter", row["name"]), key: row} for row in rows]
