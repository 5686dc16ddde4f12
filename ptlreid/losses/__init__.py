"""One plain function a file, its name that of the loss: (Output, labels) to a scalar."""
