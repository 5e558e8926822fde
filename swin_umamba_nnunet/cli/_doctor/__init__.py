"""What `swin-umamba doctor` looks at."""
