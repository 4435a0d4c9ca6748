"""A run from its configuration to its report: teacher, student and control for every seed.

Here are the pipeline, the construction of models and data from settings, training with exact resume, progress,
evaluation and the report. Nothing imports this package except the command line and the contract checks.
"""
