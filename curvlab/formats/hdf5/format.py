"""Registers HDF5 files."""

from __future__ import annotations

from curvlab.formats.format import Format, deferred, register

register(
    Format(
        name="hdf5",
        what="an HDF5 file (.h5, .hdf5)",
        support="runnable",
        detect=lambda candidate: candidate.head.startswith(b"\x89HDF\r\n\x1a\n"),
        read=deferred("curvlab.formats.hdf5.file:read_hdf5"),
        network=deferred("curvlab.formats.keras.network:keras_network"),
        needs="keras, where the file holds the whole model",
        extra="keras",
        suffixes=(".h5", ".hdf5"),
    )
)
