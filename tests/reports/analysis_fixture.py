"""A fully populated analysis, made by hand, that every renderer is tried on."""

from __future__ import annotations

from curvlab.analyses.kfac import KfacResult
from curvlab.analyses.moments import MomentsResult
from curvlab.analyses.results import Analysis, BlockCoverage, Coverage, LayerResult
from curvlab.analyses.tnt import TensorNormalResult
from curvlab.analyses.weight_statistics import WeightsResult
from curvlab.analyses.whitening import Whitening
from curvlab.operators.summary import Spectrum


def spectrum(size: int, condition: float | None, rank: int | None = None) -> Spectrum:
    return Spectrum(
        size=size,
        trace=2.5 * size,
        max=12.5,
        min=0.0 if condition is None else 12.5 / condition,
        rank=size if rank is None else rank,
        effective_rank=0.4 * size,
        condition_number=condition,
        condition_number_nonzero=3.25e5 if condition is None else condition,
        quantiles=(0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 12.5),
        stderr={"condition_number": None if condition is None else 0.04 * condition, "trace": 0.1},
    )


def weights(nonfinite: int = 0) -> WeightsResult:
    return WeightsResult(
        spectral_norm=4.125,
        frobenius_norm=9.5,
        stable_rank=5.31,
        effective_rank=14.2,
        condition_number=None if nonfinite else 1530.0,
        rank=20,
        nonfinite=nonfinite,
        zeros=3,
        tail_exponent=2.75,
        tail_distance=0.08,
        tail_start=0.7,
        tail_count=11,
    )


def moments(identity: float | None) -> MomentsResult:
    return MomentsResult(
        count=1797 * 64,
        size=65,
        rank=61 if identity is None else 65,
        effective_rank=17.3,
        mean_energy=0.625,
        dead=3 if identity is None else 0,
        duplicated=0,
        condition_number=Whitening(identity, 4.5e4, 8210.0, 93.75, None if identity is None else 1.0),
        condition_number_nonzero=Whitening(3.25e5 if identity is None else identity, 4.5e4, 8210.0, 93.75, 1.0),
        eigenvalues={"min": 0.0, "max": 31.5, "quantiles": [0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 31.5]},
        stderr={"condition_number": {"identity": None if identity is None else 0.1 * identity, "lnb": 4.6875}},
    )


def layer(name: str, kind: str, shape: tuple[int, ...], identity: float | None) -> LayerResult:
    parameters = 1
    for side in shape:
        parameters *= side
    return LayerResult(
        name=name,
        kind=kind,
        shape=shape,
        parameters=parameters,
        confidence=1.0,
        results={
            "weights": weights(),
            "moments": moments(identity),
            "kfac": KfacResult(spectrum(65, identity, 61), spectrum(20, 1.2e4), spectrum(1300, identity), 1.75),
            "tnt": TensorNormalResult(
                "per-example", (spectrum(20, 310.0), spectrum(64, identity)), spectrum(1280, identity)
            ),
        },
    )


def analysis(*, data: bool = True, synthetic: bool = False, extra: tuple[LayerResult, ...] = ()) -> Analysis:
    layers = (
        layer("conv1", "Conv2d", (16, 1, 3, 3), 12.25),
        layer("fc1", "Linear", (20, 64), None),
        LayerResult(
            "head", "Linear", (10, 20), 210, 0.75, "bias length 10 equals the rows of weight", {"weights": weights(2)}
        ),
        *extra,
    )
    parameters = sum(one.parameters for one in layers) + 40
    blocks = (
        *(BlockCoverage(one.name, "analyzed", None, one.parameters) for one in layers if one.kfac),
        BlockCoverage("head", "weights-only", "its weight is not finite", 210),
        BlockCoverage("norm.weight", "skipped", "no adapter for WeirdNorm", 20),
        BlockCoverage("norm.bias", "skipped", "no adapter for WeirdNorm", 20),
    )
    return Analysis(
        command=("curvlab", "analyze", "model.safetensors"),
        seed=7,
        environment={"python": "3.11", "torch": "2.13.0"},
        model={
            "path": "model.safetensors",
            "format": "curvlab",
            "sha256": "00" * 32,
            "parameters": parameters,
            "runnable": data,
            "architecture": "curvlab metadata" if data else None,
        },
        data={"source": "digits", "samples": 1797, "synthetic": synthetic, "input_shape": (1, 8, 8)} if data else None,
        settings={"loss": "cross-entropy", "fisher_type": "mc", "kfac_approx": "expand", "dtype": "float32"},
        coverage=Coverage(parameters, parameters - 250, blocks),
        layers=layers,
        notes=("stripped the prefix 'module.'",),
    )
