"""Statistics: what one pass over the data accumulates."""
