"""Methods whose student is a probabilistic automaton."""
