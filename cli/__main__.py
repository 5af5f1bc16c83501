"""`python -m curvlab_cli` is the same as `curvlab`."""

from curvlab_cli.main import run

run()
