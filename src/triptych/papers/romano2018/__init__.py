"""Romano, Aberdam, Sulam & Elad, Adversarial Noise Attacks of Deep Learning Architectures, JMIV 2020 (preprint 2018)."""
