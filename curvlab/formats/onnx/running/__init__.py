"""ONNX graphs that run: constants folded, nodes executed within a budget, a network built, tried and compared."""
