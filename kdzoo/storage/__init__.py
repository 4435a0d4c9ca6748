"""Everything that is written to disk: atomic files, checkpoints, run folders and stored teacher outputs.

A file is either complete or absent, is checked when it is read, and is never overwritten by another run.
"""
