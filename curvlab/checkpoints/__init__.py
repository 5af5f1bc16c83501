"""Saved models: which format a file has, what it holds, which layers these are, and the network if there is one."""
