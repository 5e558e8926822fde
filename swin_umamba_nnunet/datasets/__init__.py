"""Raw data written as nnU-Net raw datasets: the demo's brain here, everything that users bring in `conversion`."""

from swin_umamba_nnunet.datasets.brain import BRAIN_DATASET_ID, BRAIN_DATASET_NAME, write_brain_dataset

__all__ = ["BRAIN_DATASET_ID", "BRAIN_DATASET_NAME", "write_brain_dataset"]
