"""Papyan and others, 2017: Working Locally Thinking Globally, and Convolutional Neural Networks Analyzed via Sparse Coding."""
