"""Learning a convolutional dictionary: codes and atoms by turns."""
