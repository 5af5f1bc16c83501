"""Importing this registers the built-in problems, by the road that plugins take."""

import curvlab.problems.digits
import curvlab.problems.fashion
import curvlab.problems.mnist
import curvlab.problems.tables  # noqa: F401
