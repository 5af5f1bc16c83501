"""Operators without a function, and why: the reason a user reads when a file is opened for its weights only."""

from __future__ import annotations

from curvlab.formats.onnx.operators.table import refuse

refuse("branches and loops of the graph are not run", "If", "Loop", "Scan")
refuse(
    "the graph is quantised: its weights are whole numbers",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)
refuse(
    "its output is random",
    "Bernoulli",
    "Multinomial",
    *(f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")),
)
refuse(
    "sequences and optional values are not tensors",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "SplitToSequence",
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
)
refuse(
    "text is not a tensor",
    "StringConcat",
    "StringNormalizer",
    "StringSplit",
    "RegexFullMatch",
    "TfIdfVectorizer",
)
refuse("it reads image files", "ImageDecoder")
refuse("regions of a detector are not supported", "NonMaxSuppression", "MaxRoiPool")
refuse("no exporter is known to write it yet", "LinearAttention")
