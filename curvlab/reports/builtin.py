"""Importing this registers the built-in formats of reports, as a plugin's import does; options are in this order."""

from __future__ import annotations

from curvlab.registry import import_room

ORDER = ("contract", "csv", "markdown")
"""Those that come first; every other module follows by name."""

import_room("curvlab.reports.writers", ORDER)
