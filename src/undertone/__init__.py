"""Undertone teaches speech language models to hear how something is said as well as what is said, and measures whether they do."""

__version__ = "0.1.0"
