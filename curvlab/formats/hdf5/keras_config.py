"""Keras' description of a network, read as JSON and never run: the classes of its layers, and which may be built.

Building runs Python named by the file. So every name must be on the lists below: layers that compute from their inputs
and weights alone. Left out are Lambda (code in the file), wrappers of other frameworks (TFSMLayer, TorchModuleWrapper,
JaxLayer, FlaxLayer: they load what the file names) and look-ups of strings (their vocabulary may be a path).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from curvlab.formats import strict_json
from curvlab.formats.hdf5.outline import MAX_TEXT_BYTES
from curvlab.quoting import quoted

# Building a layer takes about a millisecond.
MAX_CALLS = 20_000
_LAYERS = """
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Convolution1D
    Convolution2D Convolution3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Discretization
    Dot Dropout ELU EinsumDense Embedding Flatten GELU GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization GroupQueryAttention Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute
    RMSNormalization RNN RandomBrightness RandomContrast RandomCrop RandomFlip RandomHeight RandomRotation
    RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D
    SeparableConv2D SeparableConvolution2D SimpleRNN SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D
    SpatialDropout3D SpectralNormalization StackedRNNCells Subtract ThresholdedReLU TimeDistributed UnitNormalization
    UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
_MODELS = frozenset({"Functional", "Model", "Sequential"})
_PARTS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros STFT L1 L2 L1L2
    OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm DTypePolicy DTypePolicyMap FloatDTypePolicy Policy
    TensorShape
"""
_VALUES = frozenset({"__keras_tensor__", "__ellipsis__", "__slice__"})
_MODULE = re.compile(r"keras(\.src)?(\.[a-z_0-9]+)*")
_OPERATIONS = re.compile(r"keras\.src\.ops\.(numpy|nn|math|linalg|image)")
_ACTIVATIONS = re.compile(r"keras(\.src)?\.activations(\.activations)?|builtins")
_ACTIVATION = """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax squareplus swish tanh tanh_shrink threshold
"""
LAYERS, PARTS, ACTIVATIONS = (frozenset(text.split()) for text in (_LAYERS, _PARTS, _ACTIVATION))


class Foreign(Exception):  # noqa: N818 - an answer, not a failure
    """Why the description is not built: what it names, as the rest of a sentence.

    Args:
        why: "it has a Lambda layer, …".
        hostile: no network ever names this; the file is meant to do harm.
    """

    def __init__(self, why: str, hostile: bool = False) -> None:
        super().__init__(why)
        self.hostile = hostile


class Described(NamedTuple):
    """What a description says of its layers.

    Attributes:
        classes: name of a layer -> its class, names used for two classes left out.
        order: names of the outermost layers as the network runs them.
    """

    classes: Mapping[str, str]
    order: tuple[str, ...]


def described(text: str | None) -> Described:
    """The layers that a description names, as far as it can be read."""
    try:
        config = parse(text) if text else {}
    except Foreign:
        return Described({}, ())
    classes: dict[str, str] = {}
    for entry in _objects(config):
        name, own = entry.get("class_name"), _own_name(entry)
        if isinstance(name, str) and own is not None and name not in PARTS | _MODELS:
            classes[own] = name if classes.get(own, name) == name else ""
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, Mapping) else inner  # a list in files of Keras 1 and 2.1
    order = [_own_name(layer) for layer in layers if isinstance(layer, Mapping)] if isinstance(layers, list) else []
    return Described({own: name for own, name in classes.items() if name}, tuple(own for own in order if own))


def _own_name(entry: Mapping[str, Any]) -> str | None:
    inner = entry.get("config")
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def parse(text: str) -> dict[str, Any]:
    """The description as a table.

    Raises:
        Foreign: too long, not JSON, or no table.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise Foreign(f"its description of {len(text)} letters is longer than any network's")
    try:
        config = strict_json.parse(text)
    except ValueError as error:
        raise Foreign(f"its description cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise Foreign("its description is no table")
    return config


def check(config: Mapping[str, Any]) -> None:
    """Nothing, if building the network runs only what the lists above name.

    Raises:
        Foreign: the first name that is not on them, or more layers than any network has.
    """
    for entry in _objects(config):
        if "class_name" in entry:
            _check_class(entry)
        if entry.get("compile_config") and entry is not config:
            raise Foreign("a network inside it brings settings of its training")
    if _calls(config) > MAX_CALLS:
        raise Foreign(f"its layers are applied more than {MAX_CALLS} times")


def _check_class(entry: Mapping[str, Any]) -> None:
    name, module, registered = entry["class_name"], entry.get("module"), entry.get("registered_name")
    inner = entry.get("config")
    if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        raise Foreign("it names a class by something that is no text")
    if name in _VALUES:
        return
    if name in ("Lambda", "__lambda__"):
        raise Foreign("it has a Lambda layer, whose Python code is in the file")
    where = f"{module}.{name}" if module else name
    outside = module is not None and not _MODULE.fullmatch(module)
    if outside and module != "builtins":
        package = str(module).split(".")[0]
        raise Foreign(
            f"it names {quoted(where)}, which is outside of Keras", package in sys.stdlib_module_names - {"__main__"}
        )
    if registered and registered not in (name, inner):
        raise Foreign(f"it names {quoted(registered)}, a class that its author registered")
    if name == "function":
        if not isinstance(inner, str) or inner not in ACTIVATIONS or not _ACTIVATIONS.fullmatch(module or "builtins"):
            raise Foreign(f"it names the function {quoted(f'{module}.{inner}' if module else inner)}")
        return
    operation = module is not None and _OPERATIONS.fullmatch(module) and name.isidentifier() and name[0].isupper()
    if outside or not (operation or name in LAYERS | _MODELS | PARTS):
        raise Foreign(f"it names {quoted(where)}, which is not on the list of Keras' own layers")


def _objects(config: Any) -> Iterator[Mapping[str, Any]]:
    """Every table in the description, the outermost first."""
    queue = [config]
    for part in queue:
        if isinstance(part, Mapping):
            yield part
            queue.extend(part.values())
        elif isinstance(part, list):
            queue.extend(part)


def _calls(config: Any, depth: int = 0) -> int:
    """How often layers are applied while the network is built: a network within it, applied twice, counts twice."""
    if depth > 50:
        return MAX_CALLS + 1
    if isinstance(config, list):
        return sum(_calls(part, depth + 1) for part in config if isinstance(part, Mapping | list))
    if not isinstance(config, Mapping):
        return 0
    nodes = config.get("inbound_nodes")
    times = max(1, len(nodes)) if isinstance(nodes, list) else 1
    inside = sum(
        _calls(part, depth + 1)
        for key, part in config.items()
        if key != "inbound_nodes" and isinstance(part, Mapping | list)
    )
    return min(times * (("class_name" in config) + inside), MAX_CALLS + 1)
