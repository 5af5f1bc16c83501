"""Importing this registers the curvatures that curvlab brings, as a package's import does.

K-FAC, EKFAC, TNT and Shampoo have optimizers and analyses of their own, with settings that only they have.
"""

from __future__ import annotations

from curvlab.registry import import_room

import_room("curvlab.curvatures")
