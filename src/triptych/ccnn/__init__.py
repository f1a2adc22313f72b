"""Convexified convolutional networks: each layer is a convex program, solved to a certified optimum."""
