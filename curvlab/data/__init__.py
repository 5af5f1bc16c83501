"""Data for a profile: datasets by name, readers for what users have on disk, and how they are fitted to a model."""

from curvlab.data.dataset import Dataset
from curvlab.data.fit import fit, input_shape
from curvlab.data.load import load
from curvlab.data.registry import ENTRIES, Entry, names

__all__ = ["ENTRIES", "Dataset", "Entry", "fit", "input_shape", "load", "names"]
