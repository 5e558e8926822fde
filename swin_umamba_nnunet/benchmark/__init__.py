"""Measuring: operators now; networks and whole trainings later."""
