"""Methods for directed graphical models.

The methods are :mod:`.semi_auxiliary`, :mod:`.continual` and :mod:`.elbo`. Each of the other modules holds one decision
that a method leaves to its user: how nodes are compared, whose latents the student's nodes read, how gradients reach
discrete latents, how the teacher is rolled out, what is done for old classes.
"""
