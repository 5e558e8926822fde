"""Made-up folders in every layout that `swin-umamba convert` takes, a few tiny cases each."""

import contextlib
import io
import struct
from dataclasses import replace
from unittest import mock

import numpy as np
import SimpleITK as sitk
from PIL import Image

from swin_umamba_nnunet.datasets import umamba
from swin_umamba_nnunet.datasets._write import judge
from tests.evaluation import files
from tests.jsons import dump

ROWS, COLUMNS = 12, 17
SYNAPSE_SHAPE = (3, 10, 8)


def integrity_here_and_now(folder, processes):
    """nnU-Net's integrity check in this process: its pools of workers take seconds to start."""
    import multiprocessing.dummy

    from nnunetv2.experiment_planning import verify_dataset_integrity as verify
    from nnunetv2.utilities import utils

    threads = multiprocessing.dummy
    patches = mock.patch.object(verify, "multiprocessing", mock.Mock(get_context=lambda method: threads))
    said = io.StringIO()
    try:
        with patches, mock.patch.object(utils, "Pool", threads.Pool), contextlib.redirect_stdout(said):
            verify.verify_dataset_integrity(str(folder), 1)
    except (AssertionError, RuntimeError) as error:
        return judge(1, said.getvalue(), f"{type(error).__name__}: {error}")
    return judge(0, said.getvalue(), "")


def save(path, pixels, **settings):
    """Write a picture, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)
    return path


def photo(seed, rows=ROWS, columns=COLUMNS):
    """Noise in colour, (rows, columns, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


def blob(value=255, rows=ROWS, columns=COLUMNS):
    """A mask (rows, columns) uint8 with a rectangle of `value` on 0."""
    mask = np.zeros((rows, columns), np.uint8)
    mask[2:7, 3:9] = value
    return mask


def write_case(folder, name, seed, mask=""):
    """`images/NAME.png` and `masks/NAMEmask.png` of 0/255."""
    save(folder / "images" / f"{name}.png", photo(seed))
    save(folder / "masks" / f"{name}{mask}.png", blob())


def write_images(folder, cases=4):
    """`images/` and `masks/` of 0/255."""
    for index in range(cases):
        write_case(folder, f"img{index}", index)
    return folder


def write_isic(folder):
    """VM-UNet's tree."""
    for index in range(5):
        write_case(folder / ("train" if index < 3 else "val"), f"ISIC_{index:07d}", index, "_segmentation")
    return folder


def synapse_volume(seed):
    """Image in [0, 1] and labels 0 to 8, (D, H, W)."""
    random = np.random.default_rng(seed)
    return random.random(SYNAPSE_SHAPE, np.float32), random.integers(0, 9, SYNAPSE_SHAPE).astype(np.float32)


def write_medsegbench(folder, name="s", **arrays):
    """`NAME.npz` of three training, two validation, two test images; `arrays` replace its own, None takes one out."""
    content: dict = {}
    for part, count in (("train", 3), ("val", 2), ("test", 2)):
        content[f"{part}_images"] = np.stack([photo(10 * len(content) + index) for index in range(count)])
        content[f"{part}_label"] = np.stack([blob(1)] * count)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: array for key, array in {**content, **arrays}.items() if array is not None}
    np.savez_compressed(folder / f"{name}.npz", **kept)
    return folder


def write_synapse(folder, train=(5, 6), test=(1,)):
    """TransUNet's tree."""
    import h5py

    (folder / "train_npz").mkdir(parents=True)
    (folder / "test_vol_h5").mkdir()
    for case in train:
        image, label = synapse_volume(case)
        for index in range(len(image)):
            np.savez(
                folder / "train_npz" / f"case{case:04d}_slice{index:03d}.npz", image=image[index], label=label[index]
            )
    for case in test:
        image, label = synapse_volume(case)
        with h5py.File(folder / "test_vol_h5" / f"case{case:04d}.npy.h5", "w") as file:
            file["image"], file["label"] = image, label
    return folder


def publish_703_small(monkeypatch):
    """As if 703 had been published with three training and two test images, as `write_umamba_703` makes them."""
    small = {703: replace(umamba.PUBLISHED[703], training=(3,), test=2)}
    monkeypatch.setattr(umamba, "PUBLISHED", {**umamba.PUBLISHED, **small})


def write_umamba_703(folder):
    """Dataset703_NeurIPSCell as U-Mamba's authors lay it out, with three training and two test images."""
    folder = folder / "Dataset703_NeurIPSCell"
    instances = np.zeros((ROWS, COLUMNS), np.uint16)
    instances[1:3, 1:3], instances[5:9, 5:9] = 1, 300
    for index in range(5):
        part, name = "Tr" if index < 3 else "Val", f"cell_{index:05d}"
        save(folder / f"images{part}/{name}_0000.png", photo(index))
        save(folder / f"labels{part}/{name}.png", blob(1) + blob(1) * (photo(index)[..., 0] > 128))
        if part == "Val":
            save(folder / f"labelsVal-instance-mask/{name}_label.tiff", instances)
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "interior": 1, "boundary": 2},
        "numTraining": 3,
        "file_ending": ".png",
    }
    dump(folder / "dataset.json", content)
    return folder


def write_umamba_702(folder):
    """Dataset702_AbdomenMR, volumes of a few voxels; 50 training cases where dataset.json counts 60."""
    folder = folder / "Dataset702_AbdomenMR"
    for index in range(100):
        part, name, random = "Tr" if index < 50 else "Ts", f"amos_{index:04d}", np.random.default_rng(index)
        write_volume(folder / f"images{part}/{name}_0000.nii.gz", random.normal(size=(2, 4, 5)))
        labels = random.integers(0, 14, (2, 4, 5)).astype(np.uint8)
        write_volume(folder / f"labels{part}/{name}.nii.gz", labels)
    content = {"modality": {"0": "MR"}, "labels": {"0": "background"}, "numTraining": 60}
    dump(folder / "dataset.json", content)
    return folder


def write_volume(path, array, spacing=(1.5, 0.7, 0.8), origin=(10.0, -20.0, 5.0)):
    """A volume file (D, H, W) with `spacing` in mm along (D, H, W)."""
    return files.write_volume(path, array.astype(np.float32) if array.dtype == np.float64 else array, spacing, origin)


def write_volumes(folder, cases=3, ending=".nii.gz"):
    """`images/` and `labels/` of volumes."""
    for index in range(cases):
        write_volume(folder / "images" / f"pat{index}{ending}", np.random.default_rng(index).normal(size=(3, 6, 5)))
        label = np.zeros((3, 6, 5), np.uint8)
        label[1, 2:4, 1:4] = 1
        write_volume(folder / "labels" / f"pat{index}{ending}", label)
    return folder


MAKERS = {
    "medsegbench": write_medsegbench,
    "isic": write_isic,
    "synapse": write_synapse,
    "umamba": write_umamba_703,
    "images": write_images,
    "volumes": write_volumes,
}


def write_dicom(folder, seed=0, positions=(0.0, 2.0, 4.0, 6.0), uid="1.2.3", shift=0.0):
    """One DICOM series: a slice of 6 x 5 pixels at each of `positions` mm, shifted sideways by `shift` mm per mm."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, position in enumerate(positions):
        image = sitk.GetImageFromArray(random.integers(-1000, 500, (1, 6, 5)).astype(np.int16))
        image.SetSpacing((0.7, 0.8, 2.0))
        image.SetOrigin((0.0, shift * position, position))
        for key, value in {
            "0008|0060": "CT",
            "0008|103e": f"series {uid}",
            "0008|0018": f"{uid}.{index + 1}",
            "0020|000e": uid,
            "0020|000d": "1.2.9",
            "0020|0013": str(index + 1),
            "0020|0032": f"0\\{shift * position}\\{position}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0010|0010": "DOE^JANE",
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}_IM{index:03d}.dcm"))
        writer.Execute(image)
    return folder


def write_dicom_object(path, kind, meta=True):
    """A DICOM file without pixels, of the SOP class `kind`; `meta`: its meta information says so, too."""

    def element(group, number, vr, value):
        value += b"\0" * (len(value) % 2)
        return struct.pack("<2H2sH", group, number, vr, len(value)) + value

    head = element(2, 2, b"UI", kind.encode()) if meta else b""
    head += element(2, 3, b"UI", b"1.2.5.1") + element(2, 16, b"UI", b"1.2.840.10008.1.2.1")
    body = element(8, 0x16, b"UI", kind.encode()) + element(8, 0x18, b"UI", b"1.2.5.1")
    body += element(8, 0x60, b"CS", b"OT") + element(0x20, 0xD, b"UI", b"1.2.9") + element(0x20, 0xE, b"UI", b"1.2.5")
    path.write_bytes(bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(head))) + head + body)
    return path


def snapshot(folder):
    """Every file below a folder and what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
