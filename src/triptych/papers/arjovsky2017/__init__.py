"""Arjovsky, Chintala & Bottou, Wasserstein Generative Adversarial Networks, ICML 2017."""
