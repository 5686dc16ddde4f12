"""One file a backbone, its name that of the file: each holds `BACKBONE`."""
