"""What `swin-umamba benchmark` consists of."""
