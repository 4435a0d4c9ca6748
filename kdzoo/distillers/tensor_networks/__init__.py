"""Methods whose student is a matrix product state."""
