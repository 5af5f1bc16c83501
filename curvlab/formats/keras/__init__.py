"""Keras 3 models (.keras), and networks that Keras builds from a checked description."""
