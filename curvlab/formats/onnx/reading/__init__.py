"""An ONNX file as plain data: told by its outline, parsed within bounds, its graph, its stored tensors, its names."""
