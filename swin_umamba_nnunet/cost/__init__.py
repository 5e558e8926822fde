"""What networks cost: parameters, FLOPs, activations, the memory of a training step, and plans that fit a memory."""
