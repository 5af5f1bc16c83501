"""ONNX graphs run with torch: one table of operators, and a network whose layers are `nn` modules."""
