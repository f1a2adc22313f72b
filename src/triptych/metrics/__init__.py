"""Measures of samples: pure functions of two samples, or of samples and a law."""
