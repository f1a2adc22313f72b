"""Pursuits: streams of codes for a coding problem."""
