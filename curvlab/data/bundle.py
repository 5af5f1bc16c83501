"""Make `embedded.npz` from scikit-learn's bundled copies: `python -m curvlab.data.bundle`.

The numbers are stored as scikit-learn has them (digits as whole numbers 0 to 16, the tables in their own units,
unscaled), so that a test can compare them; scaling happens when they are loaded. Sources and licences are in
`curvlab.data.registry`.
"""

from __future__ import annotations

from pathlib import Path

EMBEDDED = Path(__file__).with_name("embedded.npz")


def bundle(path: Path = EMBEDDED) -> None:
    """Write every embedded dataset to `path` as `NAME.x` and `NAME.y`."""
    import numpy as np
    from sklearn import datasets

    digits, diabetes = datasets.load_digits(), datasets.load_diabetes(scaled=False)
    arrays = {"digits.x": digits.data.astype(np.uint8), "digits.y": digits.target.astype(np.uint8)}
    for name in ("wine", "breast_cancer", "iris"):
        table = getattr(datasets, f"load_{name}")()
        arrays[f"{name.replace('_', '-')}.x"] = table.data
        arrays[f"{name.replace('_', '-')}.y"] = table.target.astype(np.uint8)
    arrays["diabetes.x"], arrays["diabetes.y"] = diabetes.data, diabetes.target
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    bundle()
