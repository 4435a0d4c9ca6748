"""Unlabelled data sets whose samples are vectors of real numbers."""
