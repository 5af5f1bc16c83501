"""The language of --fail-if: what it says, what null means in it, what it refuses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports.analysis_fixture import analysis, layer, spectrum

from curvlab.analyses.fop import FopResult
from curvlab.analyses.fop_structure import KernelStructure
from curvlab.errors import CommandError
from curvlab.gates import parse

DOCUMENT = analysis(
    extra=(
        layer("encoder.0.fc", "Linear", (4, 4), 2.0),
        layer("conv-1", "Conv2d", (4, 4), 2.0),
        layer("any", "Linear", (4, 4), 2.0),
    )
).to_dict()
LEARNED = (
    analysis()
    .having(
        fop=(
            FopResult("conv1", "conv1.weight", "full", 9, 9, False, (3, 3), spectrum(9, 4.0), 3.5),
            FopResult("fc1", "fc1.first", "full", 64, 64, False, None, spectrum(64, None), 8.0),
            FopResult(
                "fc1", "fc1.second", "low-rank", 64, 4, True, None, None, None, KernelStructure(1.0, (), 0.5, None)
            ),
        )
    )
    .to_dict()
)
"""With FOP's matrices: one of conv1, two of fc1, the second without eigenvalues."""


def holds(text, document=DOCUMENT):
    return parse(text).check(document).holds


@pytest.mark.parametrize(
    "text",
    [
        "coverage.analyzed < 0.99 * coverage.parameters",
        "seed == 7",
        "data.samples>1e3",
        "data.synthetic == 0",
        "conv1.weights.rank == 20",
        "encoder.0.fc.moments.condition_number.identity == 2",
        "conv1.tnt.modes.1.size == 64",
        "conv1.moments.eigenvalues.quantiles.6 > 31",
        '"conv-1".weights.rank >= 2e1',
        "'any'.weights.rank != 21",
        'conv1."tnt".modes.1."size" == 64',
        'any."weights".rank == 20',
        "-conv1.weights.rank <= -20",
        "(conv1.weights.rank + 1) * 2 / 3 - 4 == 10",
        "1 < conv1.weights.rank < 30",
        "not seed == 8",
        "seed == 8 or seed == 7 and not (seed == 9)",
        "any.weights.nonfinite > 0",
        "all.weights.rank == 20",
        "not all.moments.dead == 0",
        "any.moments.dead > any.moments.duplicated",
        "any.moments.size > conv1.weights.rank",
    ],
)
def test_what_holds_and_its_denial(text):
    assert holds(text)
    assert not holds(f"not ({text})")


def test_an_infinite_condition_number_is_above_every_limit():
    assert DOCUMENT["layers"][1]["kfac"]["kronecker"]["condition_number"] is None
    assert holds("fc1.kfac.kronecker.condition_number > 1e300")
    assert holds("fc1.moments.condition_number.identity == inf")
    assert not holds("fc1.kfac.kronecker.condition_number < inf")
    assert holds("any.kfac.kronecker.condition_number > 1e12")
    assert not holds("all.kfac.kronecker.condition_number > 1e12")
    assert holds("3e5 < fc1.moments.condition_number_nonzero.identity < 4e5")


def test_a_condition_number_that_was_not_computed_is_not_infinite():
    first, second, _ = DOCUMENT["layers"][:3]
    large = {**first, "weights": {**first["weights"], "condition_number": None, "rank": None}}
    small = {**second, "weights": {**second["weights"], "condition_number": 3.0}}
    document = {**DOCUMENT, "layers": [large, small]}
    assert not parse("any.weights.condition_number > 1e8").check(document).holds
    with pytest.raises(CommandError, match="not computed"):
        parse("conv1.weights.condition_number > 1e8").check(document)
    spoiled = {**large, "weights": {**large["weights"], "nonfinite": 2}}
    assert parse("any.weights.condition_number > 1e8").check({**document, "layers": [spoiled, small]}).holds
    nothing = {**first, "moments": {**first["moments"], "condition_number_nonzero": {"centered": None}}}
    with pytest.raises(CommandError, match="null"):
        parse("any.moments.condition_number_nonzero.centered > 1").check({**document, "layers": [nothing]})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fc1.moments.stderr.condition_number.identity > 1", "null"),
        ("head.kfac.pi > 1", "was not computed"),
        ("fc1.wieghts.rank > 1", "did you mean 'weights'"),
        ("fc2.weights.rank > 1", "did you mean 'fc1'"),
        ("any.weights.rnk > 1", "did you mean 'rank'"),
        ("model.path == 1", "not a number"),
        ("conv1.tnt.modes.9.rank > 1", "there is no '9'"),
        ("conv1.weights.rank.x > 1", "there is no 'x'"),
        ("1 / 0 > 1", "division by zero"),
        ("inf - inf > 1", "no number"),
    ],
)
def test_what_cannot_be_decided_is_said_and_not_passed(text, sentence):
    with pytest.raises(CommandError, match=sentence) as error:
        holds(text)
    assert error.value.exit_code == 2


def test_layers_without_the_number_are_left_out_unless_none_has_it():
    assert holds("all.kfac.pi == 1.75")  # head has none
    assert holds("any.tnt.modes.1.size == 64")
    with pytest.raises(CommandError, match="cannot be decided"):
        holds("any.hessian.trace > 1")
    with pytest.raises(CommandError, match="no layer"):
        parse("any.weights.rank > 1").check({**DOCUMENT, "layers": []})


REFUSED = """
1
conv1.weights.rank
1 >
> 1
1 > 2 >
(1 > 2
1 > 2)
1 >> 2
a = 1
1 > 2 # x
f(1) > 2
x[0] > 1
lambda: 1
1 if 1 > 0 else 2
[1] > 2
'a' 'b' > 1
'' > 1
2 ** 9 > 1
2 // 1 > 1
1 in x
x is 1
(1 > 2) + 1 > 0
not 1
1 and 2
+1 > 0
~1 > 0
{1} > 0
f'{x}' > 1
x := 1
any.weights.rank > all.weights.rank
1 > 2; 3 > 4
__import__('os').x > 1
yield
await x
""".strip().splitlines()
LONG = ["(" * 240 + "1" + ")" * 240 + " > 0", "-" * 499 + "1", "not " * 120 + "1 > 2 or", "1 > 0" + " or 1 > 0" * 100]


@pytest.mark.parametrize("text", [*REFUSED, *LONG, "", " ", "1 > \x00", "1 > 2\n3 > 4"])
def test_what_is_not_a_gate_is_refused(text):
    with pytest.raises(CommandError) as error:
        parse(text)
    assert error.value.exit_code == 2


@given(st.text(max_size=60))
def test_no_text_does_anything_but_parse_or_be_refused(text):
    with suppress(CommandError):
        parse(text).check(DOCUMENT)


@given(st.text(alphabet="any.all01 <>=()+-*/notrdkfc'\"", max_size=40))
def test_nothing_near_the_language_crashes(text):
    with suppress(CommandError):
        parse(text).check(DOCUMENT)


def test_the_evidence_names_layers_and_values():
    assert parse("any.weights.nonfinite > 0").check(DOCUMENT).evidence == ("head: 2 > 0",)
    assert "fc1: inf > 1e+12" in parse("any.kfac.kronecker.condition_number > 1e12").check(DOCUMENT).evidence


@pytest.mark.parametrize(
    "text",
    [
        "any.fop.norm > 7",
        "all.fop.norm > 3",
        "not all.fop.norm > 7",
        "any.fop.rank == 4",
        "all.fop.size > 8 and any.moments.dead > 0",
        "any.fop.spectrum.condition_number > 1e300",
        "any.fop.structure.others == 0.5",
        "any.fop.norm > 2 * any.weights.tail_exponent",  # of the matrix's own layer
        "conv1.fop.norm == 3.5",
        "fc1.fop.norm == 8",
        "fop.2.rank == 4",
        "conv1.fop.norm < fc1.fop.norm",
    ],
)
def test_gates_on_what_fop_has_learned(text):
    assert holds(text, LEARNED)
    assert not holds(f"not ({text})", LEARNED)


def test_the_evidence_names_the_matrices():
    assert parse("any.fop.norm > 3").check(LEARNED).evidence == ("conv1.weight: 3.5 > 3", "fc1.first: 8 > 3")


@pytest.mark.parametrize(
    ("text", "document", "sentence"),
    [
        ("any.fop.norm > 1", DOCUMENT, "'fop' has no rows"),
        ("conv1.fop.norm > 1", DOCUMENT, "there is no 'fop'"),
        ("head.fop.norm > 1", LEARNED, "was not computed"),
        ("any.fop.nrom > 1", LEARNED, "did you mean 'norm'"),
        ("all.fop.structure.negative > 1", LEARNED, "was not computed"),
        ("any.fop.norm > all.weights.rank", LEARNED, "any layer and about all"),
    ],
)
def test_gates_on_fop_that_cannot_be_decided(text, document, sentence):
    with pytest.raises(CommandError, match=sentence):
        holds(text, document)
