"""Candidates divided over the ranks of a process group."""
