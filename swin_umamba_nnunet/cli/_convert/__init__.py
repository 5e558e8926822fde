"""Parts of `swin-umamba convert`."""
