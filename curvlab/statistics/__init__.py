"""Statistics: what recipes sum over one sample, one statistic per file."""
