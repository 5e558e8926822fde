"""ImageNet weights in a training: found before it starts, loaded into a fresh one, recorded in its checkpoints."""

from pathlib import Path
from typing import Any

from swin_umamba_nnunet.pretrained import WeightsError, ensure_weights, load_imagenet_weights
from swin_umamba_nnunet.trainers.base import NetworkTrainer

CHECKPOINT_KEY = "imagenet_weights"


class ImageNetStart(NetworkTrainer):
    """A trainer that deals with ImageNet weights.  Does nothing where `imagenet_weights` is None.

    nnU-Net initialises the network before `on_train_start` where its weights come from a checkpoint (`--c`, `--val`,
    `-pretrained_weights`), and inside it in a fresh training.  Only the latter needs the ImageNet file, and stops
    without it before the preprocessed data is looked at.
    """

    imagenet_record: dict[str, Any] | None = None  # the LoadReport, in this run or in the one it continues
    _resumed = False

    def prepare_weights(self) -> None:
        """In a fresh training: initialise, and load the ImageNet weights on every rank.  Else say what is in place.

        Raises:
            WeightsNotFoundError, CheckpointError: no usable file; what this run has written so far is removed.
        """
        if self.imagenet_weights is None:
            return
        if self.was_initialized:
            self.print_to_log_file(self._why_not_loaded())
            return
        try:
            # Every rank searches for itself: of those that download, one does and the others wait for its file lock.
            # Waiting in a collective instead would end in NCCL's timeout on a slow connection.
            checkpoint = ensure_weights(self.imagenet_weights, scratch_trainer=self.scratch_trainer)
            self.initialize()
            report = load_imagenet_weights(self.network, checkpoint)
        except WeightsError:
            self._remove_traces()
            raise
        self.imagenet_record = report.to_dict()
        self.print_to_log_file(report.summary())
        self.print_to_log_file(f"sha256 of the ImageNet weights: {report.sha256}")

    def _why_not_loaded(self) -> str:
        if not self._resumed:
            return (
                "ImageNet weights were NOT loaded: the network was initialised before the training started, "
                "as -pretrained_weights does, and keeps the weights it has"
            )
        if self.imagenet_record is None:
            return "Continuing from a checkpoint that does not say which ImageNet weights it started from"
        variant, digest = self.imagenet_record["variant"], self.imagenet_record["sha256"]
        return f"Continuing a training that started from the ImageNet weights {variant} (sha256 {digest})"

    def _remove_traces(self) -> None:
        """Remove this run's log file, and its folders as far as they are empty."""
        if self.local_rank != 0:
            return
        Path(self.log_file).unlink(missing_ok=True)
        folder = Path(self.output_folder)
        for empty in (folder, folder.parent, folder.parent.parent):  # fold, trainer, dataset
            try:
                empty.rmdir()
            except OSError:
                return

    # --------------------------------------------------------------------------------------------- checkpoints

    def additions(self) -> dict[str, Any]:
        """The LoadReport under the key `imagenet_weights`, if there is one."""
        report = {} if self.imagenet_record is None else {CHECKPOINT_KEY: self.imagenet_record}
        return {**super().additions(), **report}

    def adopt_checkpoint(self, checkpoint: dict) -> None:
        """Take over what the checkpoint says about its ImageNet weights."""
        super().adopt_checkpoint(checkpoint)
        self.imagenet_record = checkpoint.get(CHECKPOINT_KEY)
        self._resumed = True
