"""The curvatures that curvlab brings and registers in the way that packages do.

K-FAC, EKFAC, TNT and Shampoo have optimizers and analyses of their own, with settings that only they have.
"""

from __future__ import annotations

import importlib

ORDER = ("block_fisher",)

for _name in ORDER:
    importlib.import_module(f"curvlab.curvatures.{_name}")
