"""Importing this package registers Keras' layers with `curvlab.layers.layer.adapt`, as soon as Keras is imported.

Keras takes seconds to import and no module can be one of its layers before that, so this package never imports it: it
waits.
"""

from curvlab_keras.import_hook import when_imported

when_imported("keras", "curvlab_keras.adapters")

__all__ = ["when_imported"]
