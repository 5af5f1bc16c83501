"""Formats of reports, one file each: from a `Document` to the text of a file."""
