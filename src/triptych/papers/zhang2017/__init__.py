"""Zhang, Liang & Wainwright, Convexified Convolutional Neural Networks, ICML 2017."""
