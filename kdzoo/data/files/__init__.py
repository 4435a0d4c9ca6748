"""Finding, downloading and reading files of the formats that data sets come in."""
