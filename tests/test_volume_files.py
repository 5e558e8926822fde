"""Volume files held against their headers: what ITK reads as if nothing were wrong is refused, and all else is read."""

import contextlib
import gzip
import os
import re
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.testing import assert_array_equal

from swin_umamba_nnunet._volume_files import NotFiniteError, VolumeFileError, read_header, require_whole

# (name, compressed): every format, and every way it stores its voxels
FORMATS = [("a.nii", False), ("a.nii.gz", True), ("a.gipl", False)]
FORMATS += [(f"a.{ending}", compressed) for ending in ("nrrd", "nhdr", "mha", "mhd") for compressed in (False, True)]
RANDOM = np.random.default_rng(0)
ONES = np.ones((2, 3, 4), np.uint8)
FLOATS = ONES.astype(np.float32)


def write(path, array, compressed=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(path), compressed)
    return path


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def check(path, **settings):
    header = read_header(path)
    require_whole(header, **settings)
    return header


def refused(path, match):
    with pytest.raises(VolumeFileError, match=match):
        check(path)


@pytest.mark.parametrize(
    ("name", "compressed", "dtype"),
    [
        (*each, dtype)
        for each in FORMATS
        for dtype in ("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
        if each[0] != "a.gipl" or not dtype.endswith(("int32", "int64"))  # ITK writes none of such numbers
    ],
)
@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 6), (2, 3, 4, 5)])
def test_whole_files_pass(tmp_path, name, compressed, dtype, shape):
    array = RANDOM.integers(0, 100, shape).astype(dtype)
    header = check(write(tmp_path / name, array, compressed))
    assert header.shape == shape
    assert header.bytes == array.nbytes
    read = sitk.ReadImage(str(tmp_path / name), imageIO=header.image_io)
    assert_array_equal(sitk.GetArrayFromImage(read).reshape(shape), array)


@pytest.mark.parametrize(("name", "compressed"), FORMATS)
@pytest.mark.parametrize("lost", [1, 0.5])
def test_files_that_are_cut_off(tmp_path, name, compressed, lost):
    path = write(tmp_path / name, RANDOM.integers(0, 100, (4, 30, 30)).astype(np.int16), compressed)
    data = read_header(path).data
    content = data.read_bytes()
    data.write_bytes(content[: -lost if lost >= 1 else int(len(content) * (1 - lost))])
    refused(path, "cut off")


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha", "a.gipl", "a.nii.gz"])
@pytest.mark.parametrize("left", [0, 3, 60])
def test_files_that_end_in_their_header(tmp_path, name, left):
    path = write(tmp_path / name, np.ones((3, 4, 5), np.uint8))
    path.write_bytes(path.read_bytes()[:left])
    refused(path, "empty|header|cut off")


@pytest.mark.parametrize(("name", "compressed"), [each for each in FORMATS if each[1]])
def test_a_flipped_bit_in_compressed_voxels(tmp_path, name, compressed):
    """ITK returns other numbers for most of these.  (Of a few small numbers zlib's sum is the same now and then.)"""
    path = write(tmp_path / name, RANDOM.integers(0, 250, (8, 20, 20)).astype(np.uint8), compressed)
    header = read_header(path)
    content = header.data.read_bytes()
    for place in range(len(content) - 8 * 40, len(content) - 8, 40):
        damaged = bytearray(content)
        damaged[place] ^= 16
        header.data.write_bytes(damaged)
        refused(path, "damaged|cut off")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_of_nifti_are_looked_at(tmp_path, name, order, version, dtype, value):
    import nibabel

    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    array = RANDOM.normal(size=(4, 5, 6)).astype(order + dtype)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(order + dtype)
    nibabel.save(kind(array, np.eye(4), header), tmp_path / name)  # its scl_slope is NaN, which says "not scaled"
    assert read_header(tmp_path / name).floats == order + dtype
    check(tmp_path / name)
    array[3, 4, 5] = array[0, 0, 0] = value
    nibabel.save(kind(array, np.eye(4), header), tmp_path / name)
    with pytest.raises(NotFiniteError, match="2 of 120 values"):
        check(tmp_path / name)
    check(tmp_path / name, finite=False)


def test_what_follows_the_voxels_is_not_looked_at(tmp_path):
    path = write(tmp_path / "a.nii", FLOATS)
    path.write_bytes(path.read_bytes() + b"\xff" * 40)
    check(path)


def test_blocks_end_between_two_numbers(tmp_path, monkeypatch):
    from swin_umamba_nnunet import _volume_files

    monkeypatch.setattr(_volume_files, "_BLOCK", 64)
    array = np.ones((5, 7, 9))
    array[2, 3, 4] = np.nan
    with pytest.raises(NotFiniteError, match="1 of 315"):
        check(write(tmp_path / "a.nii.gz", array))


@pytest.mark.parametrize(
    ("place", "form", "value", "message"),
    [
        (112, "<2f", (2.0, np.nan), "scl_slope 2 and scl_inter nan"),
        (112, "<f", (np.inf,), "scl_slope inf"),
        (70, "<h", (32,), "complex"),
        (70, "<h", (7,), "datatype 7"),
        (40, "<h", (9,), "9 axes"),
        (42, "<h", (-1,), "the size -1"),
        (344, "4s", (b"ni1",), "pair"),
        (0, "<i", (347,), "NIfTI header"),
        (42, "<3h", (32767, 32767, 32767), "GB of memory"),
    ],
)
def test_nifti_headers_that_mean_nothing(tmp_path, place, form, value, message):
    path = write(tmp_path / "a.nii", ONES)
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place, *value)
    path.write_bytes(content)
    refused(path, message)


@pytest.mark.parametrize("trailing", [b"\0" * 512, b"\0\0\x1f", b"\xff" * 200_000])
@pytest.mark.parametrize("shape", [(2, 3, 4), (20, 100, 100)])
def test_what_follows_a_gzip_member_is_not_looked_at(tmp_path, trailing, shape):
    """ITK reads all voxels of such a file; and of a file of several members, which is one volume."""
    array = RANDOM.normal(size=shape).astype(np.float32)
    path = write(tmp_path / "a.nii.gz", array)
    content = gzip.decompress(path.read_bytes())
    for cuts in (0, len(content)), (0, 100, 360, len(content)):
        members = b"".join(gzip.compress(content[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
        path.write_bytes(members + trailing)
        check(path)
        assert_array_equal(read(path), array)
    path.write_bytes(gzip.compress(content[:-4]) + trailing)
    refused(path, f"{array.nbytes - 4:,} bytes .* declares {array.nbytes:,}")
    damaged = bytearray(gzip.compress(content))
    damaged[-8] ^= 1  # the checksum
    path.write_bytes(damaged + trailing)
    refused(path, "damaged")


def test_a_nii_beside_a_nii_gz(tmp_path):
    """ITK would read the voxels of the other file."""
    path = write(tmp_path / "a.nii.gz", FLOATS)
    check(path)
    write(tmp_path / "a.nii", np.full((2, 3, 4), 7, np.float32))
    assert read(path).max() == 7
    refused(path, "a.nii lies beside it")
    check(tmp_path / "a.nii")


def _name_data_file(path, name):
    """Have a header name another data file."""
    text = path.read_text(encoding="utf-8")
    for field in ("ElementDataFile = ", "data file: "):
        head, found, _ = text.partition(field)
        if found:
            path.write_text(head + field + name + "\n", encoding="utf-8")


@pytest.mark.parametrize("header", ["a.mhd", "a.nhdr", "a.mha", "a.nrrd"])
@pytest.mark.parametrize(
    "name",
    [
        "{outside}",
        "../private.raw",
        "sub/../../private.raw",
        "..\\private.raw",
        "C:\\private.raw",
        "\\\\host\\p.raw",
        "LIST\n{outside}",
        "LIST\na.raw\n../private.raw",
        "../private%d.raw 1 2 1",
    ],
)
def test_a_header_that_names_a_file_elsewhere(tmp_path, header, name):
    private = tmp_path / "private.raw"
    private.write_bytes(bytes(1000))
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    path = write(folder / header.replace("mha", "mhd").replace("nrrd", "nhdr"), ONES)
    path = path.rename(folder / header)
    check(path)
    _name_data_file(path, name.format(outside=private))
    refused(path, "not in its own folder")


@pytest.mark.parametrize("header", ["a.mhd", "a.nhdr"])
def test_header_and_data_file_may_be_links(tmp_path, header):
    """So DataLad, git-annex and DVC lay out a data set: each file's content in another folder, under another name."""
    (tmp_path / "source").mkdir()
    for number, path in enumerate((write(tmp_path / header, ONES), tmp_path / "a.raw")):
        (tmp_path / f"annex{number}").mkdir()
        os.symlink(path.rename(tmp_path / f"annex{number}/content"), tmp_path / "source" / path.name)
    check(tmp_path / "source" / header)
    assert read(tmp_path / "source" / header).sum() == 24
    (tmp_path / "annex1/content").unlink()  # not fetched
    refused(tmp_path / "source" / header, '"a.raw", and that file is missing')


@pytest.mark.parametrize("header", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize("name", ["a\0.raw", "\x1b[2Ja.raw", "", "a%d%n.raw 1 4 1", "a%0100d.raw 1 4 1"])
def test_data_files_whose_names_are_none(tmp_path, header, name):
    path = write(tmp_path / header, ONES)
    _name_data_file(path, name)
    refused(path, "header is damaged")


def test_slices_in_files_of_their_own(tmp_path):
    """The numbers of the files have a bound, the digits in their names have none."""
    path, voxels = write(tmp_path / "a.nhdr", ONES), (tmp_path / "a.raw").read_bytes()
    for slice_ in range(len(ONES)):
        begin, end = (len(voxels) * at // len(ONES) for at in (slice_, slice_ + 1))
        (tmp_path / f"a20260101_{slice_:03}.raw").write_bytes(voxels[begin:end])
    _name_data_file(path, f"a20260101_%03d.raw 0 {len(ONES) - 1} 1")
    check(path)
    assert read(path).sum() == 24
    _name_data_file(path, "a%d.raw 0 2000000000 1")
    refused(path, "millions of files")


@pytest.mark.parametrize("seed", range(8))
def test_damaged_headers_are_refused_or_whole(tmp_path, seed):
    """Whatever is in a header, nothing but the two kinds of error comes out."""
    random = np.random.default_rng(seed)
    for name, compressed in FORMATS:
        path = write(tmp_path / name, FLOATS, compressed)
        content = path.read_bytes()
        for _ in range(25):
            damaged = bytearray(gzip.decompress(content) if compressed and name == "a.nii.gz" else content)
            place, letters = int(random.integers(min(400, len(damaged)))), list(b"09-.% \n/:=\0\xffLIST")
            damaged[place : place + int(random.integers(3))] = bytes(random.choice(letters, 1 + seed * 3).tolist())
            path.write_bytes(gzip.compress(damaged) if name == "a.nii.gz" else damaged)
            with contextlib.suppress(VolumeFileError, OSError):
                check(path)
        path.unlink()


@pytest.mark.parametrize("header", ["a.mhd", "a.nhdr"])
def test_a_data_file_that_is_below(tmp_path, header):
    path = write(tmp_path / header, ONES)
    (tmp_path / "süb").mkdir()
    (tmp_path / "a.raw").rename(tmp_path / "süb/a.raw")
    _name_data_file(path, "süb/a.raw")
    check(path)
    assert read(path).sum() == 24


def test_metaimage_entries_before_the_one_of_the_data(tmp_path):
    """MetaIO acts upon a name within another line; so it may stand in none."""
    path = write(tmp_path / "a.mha", ONES)
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = 3 ElementDataFile = /etc/hostname"))
    refused(path, "MetaImage header")


@pytest.mark.parametrize(("kind", "width"), [("signed char", 1), ("unsigned long long int", 8)])
def test_nrrd_has_many_names_for_a_type(tmp_path, kind, width):
    path = tmp_path / "a.nrrd"
    header = f"NRRD0004\n# data file: no\nkey:=data file: no\ntype: {kind}\ndimension: 2\nsizes: 3 4\nendian: little\n"
    path.write_bytes(f"{header}encoding: raw\n\n".encode() + bytes(12 * width))
    assert check(path).bytes == 12 * width
    assert sitk.ReadImage(str(path)).GetSize() == (3, 4)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_nrrd_headers_with_either_end_of_line(tmp_path, name, end):
    array = np.frombuffer(b"\r\n\n\r\n\n" * 4, np.uint8).reshape(2, 3, 4)  # in the voxels they end nothing
    path = write(tmp_path / name, array)
    head, blank, voxels = path.read_bytes().partition(b"\n\n")
    path.write_bytes((head + (blank or b"\n")).replace(b"\n", end) + voxels)
    header = check(path)
    assert header.shape == array.shape
    assert header.bytes == array.nbytes
    assert header.data.read_bytes()[header.offset :] == array.tobytes()
    assert_array_equal(read(path), array)


def test_metaimage_files_that_say_how_long_their_compressed_voxels_are(tmp_path):
    """ITK returns whatever was in the memory where that is missing or too short."""
    path = write(tmp_path / "a.mha", FLOATS, compressed=True)
    head, packed = path.read_bytes().split(b"LOCAL\n")

    def save(packed, length):
        said = b"" if length is None else b"CompressedDataSize = %d\n" % length
        path.write_bytes(re.sub(rb"CompressedDataSize = \d+\n", said, head) + b"LOCAL\n" + packed)

    gzipped = gzip.compress(zlib.decompress(packed))
    for good in packed, gzipped:  # MetaIO takes both
        save(good, len(good))
        check(path)
        assert read(path).sum() == 24
    save(packed, len(packed) - 9)
    refused(path, "cut off")
    save(packed, None)
    refused(path, "CompressedDataSize")


def test_a_nii_gz_that_was_never_compressed(tmp_path):
    """ITK takes it as it is; so does this."""
    write(tmp_path / "a.nii", FLOATS).rename(tmp_path / "b.nii.gz")
    assert check(tmp_path / "b.nii.gz").packing is None
    assert read(tmp_path / "b.nii.gz").sum() == 24


def test_other_endings_are_not_its_business(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert read_header(tmp_path / "a.png") is None
