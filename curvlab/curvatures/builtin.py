"""The curvatures that curvlab brings and registers in the way that packages do.

K-FAC, EKFAC, TNT and Shampoo have optimizers and analyses of their own, with settings that only they have.
"""

from __future__ import annotations

from curvlab.registry import import_room

import_room("curvlab.curvatures")
