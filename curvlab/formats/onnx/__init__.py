"""ONNX files as weights and as networks of torch's own modules.

Each folder uses those before it only: `operators` (ONNX's operators as torch functions), `reading` (a file as plain
data), `layers` (nodes that are torch's modules), `running` (a network, tried and compared). `format.py` registers it
all, `file.py` reads weights.
"""
