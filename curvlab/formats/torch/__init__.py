"""PyTorch checkpoints: zip, legacy and bare pickles, none of which is opened before it was followed inertly."""
