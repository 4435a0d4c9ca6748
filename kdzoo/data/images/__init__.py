"""Image data sets, read from files or shipped with a library, and augmentation."""
