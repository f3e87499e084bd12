"""Languages: which of nine a short text is written in, learnt from the message catalogues that Django ships."""
