"""Shapes in this package's annotations become run-time checks, before it is imported; Keras runs on torch."""

from __future__ import annotations

import os

from jaxtyping import install_import_hook

os.environ.setdefault("KERAS_BACKEND", "torch")
install_import_hook("curvlab_keras", "beartype.beartype")
