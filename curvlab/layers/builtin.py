"""The layers curvlab brings: importing this module registers them, as importing a plugin's module registers its own."""

from __future__ import annotations

from curvlab.registry import import_room

import_room("curvlab.layers")
