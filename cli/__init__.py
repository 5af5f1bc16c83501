"""The command line of curvlab: one file per command, each of which parses, calls one library function and renders."""
