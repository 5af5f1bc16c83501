"""Reports: one builder per result, which makes its `Document`, and one writer per format."""
