"""Layers in ONNX graphs: nodes with constant weights as torch's modules; a file per family."""
