"""Reports: one renderer per file, from the frozen results of an analysis to text, JSON and CSV."""
