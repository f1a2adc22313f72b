"""Adversarial networks: objectives, architectures, the one loop that trains them, and what is made with them."""
