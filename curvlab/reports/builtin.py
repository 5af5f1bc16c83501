"""Registers curvlab's own formats of reports, in the order of their options."""

from __future__ import annotations

from curvlab.reports import contract, csv, markdown

__all__ = ["contract", "csv", "markdown"]
