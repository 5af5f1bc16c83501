"""Statistics: sums over one pass over the data, one statistic per file."""
