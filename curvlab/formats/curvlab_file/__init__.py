"""curvlab's own files: safetensors whose metadata says how to make the network."""
