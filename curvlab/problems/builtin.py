"""Importing this registers the built-in problems, by the road that plugins take."""

import curvlab.problems.convolutions
import curvlab.problems.digits
import curvlab.problems.factorisation
import curvlab.problems.fashion
import curvlab.problems.mnist
import curvlab.problems.segmentation
import curvlab.problems.tables
import curvlab.problems.transformers
import curvlab.problems.wide_digits  # noqa: F401
