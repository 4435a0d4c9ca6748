"""Finding, downloading and reading the files of data sets: IDX, .npz, .mat and archives."""
