"""Pictures of images, segmentations and their differences."""
