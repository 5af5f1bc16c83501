"""ONNX's operators as torch functions: one table, a file per family, and the element types that they deal in."""
