"""Speech: which of ten words is said, learnt from the voices of espeak-ng as a telephone would carry them."""
