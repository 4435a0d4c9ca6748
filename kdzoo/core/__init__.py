"""The base classes and conventions that every method shares.

Here are the distiller base classes, the format of a batch, loss terms with their counts, argument validation, seeded
randomness and the contract of data modules. A module belongs here if several other packages need it and it knows
nothing of a particular model, data set or file format.
"""
