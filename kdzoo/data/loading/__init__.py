"""From arrays to batches: splits, samplers whose order can be resumed, and conversion."""
