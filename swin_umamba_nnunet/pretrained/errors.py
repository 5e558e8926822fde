"""What can go wrong between the name of a checkpoint and its weights in a network."""


class WeightsError(Exception):
    """Base of this room's errors; its text is one message that says what was found, expected and to do."""


class WeightsNotFoundError(WeightsError):
    """The weights are nowhere on this machine and could not be fetched either."""


class DownloadError(WeightsError):
    """The download failed or brought something else than the weights; nothing is left at the final name."""


class CheckpointError(WeightsError):
    """A file is not the checkpoint it should be: damaged, of another kind, or of another network."""
