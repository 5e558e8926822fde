"""The parts of `swin-umamba weights`."""
