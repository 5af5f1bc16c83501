"""`python -m curvlab_cli` is the same as `curvlab`."""

from .main import run

run()
