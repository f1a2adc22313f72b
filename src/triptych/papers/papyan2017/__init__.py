"""Papyan, Sulam & Elad, Working Locally Thinking Globally: theoretical guarantees for convolutional sparse coding, 2017."""
