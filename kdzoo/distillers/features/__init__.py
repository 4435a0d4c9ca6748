"""Methods that compare hidden layers."""
