"""Raw data written as nnU-Net raw datasets: the demo's brain, and what users bring, in one of the `LAYOUTS`.

    conversion = Images(masks="annotations", images=["photos"]).conversion(Path("mydata"))
    inspection = inspect(conversion)             # of `_checks`: every case read and judged
    print(format_report(inspection))             # of `_report`
    write_dataset(inspection, Path("nnUNet_raw/Dataset001_Polyps"))     # of `_write`: accepted by nnU-Net's own check

Nothing heavy is imported here, so that a command line can show the layouts' options at once.
"""

from swin_umamba_nnunet.datasets._model import Conversion, ConversionError, Finding, Layout
from swin_umamba_nnunet.datasets.brain import BRAIN_DATASET_ID, BRAIN_DATASET_NAME, write_brain_dataset
from swin_umamba_nnunet.datasets.folders import Images, Volumes
from swin_umamba_nnunet.datasets.isic import Isic
from swin_umamba_nnunet.datasets.medsegbench import MedSegBench
from swin_umamba_nnunet.datasets.synapse import Synapse
from swin_umamba_nnunet.datasets.umamba import UMamba

# A row for each layout that `swin-umamba convert` takes; a further one is a file with a `Layout`, and a row here
LAYOUTS: tuple[type[Layout], ...] = (Isic, Synapse, UMamba, MedSegBench, Images, Volumes)

__all__ = [
    "BRAIN_DATASET_ID",
    "BRAIN_DATASET_NAME",
    "LAYOUTS",
    "Conversion",
    "ConversionError",
    "Finding",
    "Images",
    "Isic",
    "Layout",
    "MedSegBench",
    "Synapse",
    "UMamba",
    "Volumes",
    "write_brain_dataset",
]
