"""The parts of `swin-umamba demo`: its folder, the steps, how commands are run, the scores and the picture."""
