"""Measuring: operators and networks, what training steps cost, plans that fit a GPU, and whole benchmarks.

Nothing is imported here, so that what does without torch (`matrix`) stays free of it.
"""
