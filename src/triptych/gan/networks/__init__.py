"""Architectures: one file a family, each a frozen dataclass of its numbers that builds a generator and a critic."""
