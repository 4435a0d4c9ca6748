"""From arrays to batches: splits of a data set, the data modules that hold them, loaders and conversion of batches."""
