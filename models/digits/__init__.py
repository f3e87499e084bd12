"""Handwritten digits: the 1,797 scans that scikit-learn ships, as 32×32 grayscale images."""
