"""Pictures of segmentations: image, ground truth, prediction and differences, for one case or many."""

SLICES = ("best", "median", "worst")  # what of a volume can be shown
PLANES = ("axial", "coronal", "sagittal")  # at right angles to the axes S, P and L
