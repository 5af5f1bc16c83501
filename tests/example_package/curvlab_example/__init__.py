"""A package of one's own that adds to curvlab by entry points alone; tests install it for a process."""
