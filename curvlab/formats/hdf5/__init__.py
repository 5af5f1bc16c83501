"""HDF5 files, as Keras writes them."""
