"""Problems by name: a network, its data and its loss, with settings per optimizer that are known to work.

A problem of a package registers by `register(Problem(...))`, in a module that the entry-point group
`curvlab.problems` names.
"""

from __future__ import annotations

from curvlab.problems.problem import Problem
from curvlab.problems.registry import PROBLEMS, register

__all__ = ["PROBLEMS", "Problem", "register"]
