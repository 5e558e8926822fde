"""The parts of `swin-umamba bench`."""
