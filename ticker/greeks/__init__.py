"""Option pricing: the batch kernel, what it is fed with, and the library it is measured against.

``kernel`` solves a batch for implied volatility and Greeks; ``reference`` does the same one option
at a time with vollib. Importing this package imports neither.
"""
