"""Volume files held against their own headers, before ITK or nibabel read them.

ITK fills what is missing of a cut NIfTI or GIPL file with zeros, turns NaN in NIfTI into 0, does not look at the
checksums of compressed MetaImage files, reads a.nii where a.nii.gz was asked for and both are there, and follows a
header to whatever file it names.  None of that is an error to it, so it is looked for here: one check for everything
that reads volumes.

Formats: NIfTI-1 and -2 (nifti1.h, nifti2.h of nifti.nimh.nih.gov), NRRD (teem.sourceforge.net/nrrd/format.html),
MetaImage (itk.org/Wiki/MetaIO/Documentation), GIPL.
"""

import bz2
import math
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PureWindowsPath
from typing import IO, Literal

import numpy as np

_BLOCK = 1 << 22  # bytes looked at at a time
_HEADER = 1 << 20  # bytes that a text header may have

_GZIP_MAGIC = b"\x1f\x8b"
_META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_GIPL_MAGIC = (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8")


class VolumeFileError(ValueError):
    """What is wrong with a volume file; without the file's name, which the caller knows."""


class NotFiniteError(VolumeFileError):
    """The file has values that are NaN or infinite."""


@dataclass(frozen=True)
class VolumeHeader:
    """What the header of a volume file declares.

    Attributes:
        size: number of voxels along x, y, z, ...
        data: the file with the voxels.
        image_io: SimpleITK's name of the reader for the format.
        bytes: of all voxels, unpacked; None where the header does not say it in a way that is understood here.
        offset: bytes before the voxels, in the unpacked file for NIfTI and else in `data`.
        packing: how the voxels are compressed; None: not, or as text.
        floats: NumPy's type of the voxels, for formats whose NaN do not survive ITK; "" for all others.
        packed: bytes of the compressed voxels that are read; 0: up to the end of the file.
    """

    size: tuple[int, ...]
    data: Path
    image_io: str
    bytes: int | None = None
    offset: int = 0
    packing: Literal["gzip", "zlib", "bzip2"] | None = None
    floats: str = ""
    packed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy has it: slices, rows, columns; axes of one voxel at the beginning left out."""
        size = self.size
        while len(size) > 2 and size[-1] == 1:
            size = size[:-1]
        return size[::-1]


def read_header(path: Path) -> VolumeHeader | None:
    """The header of a NIfTI, NRRD, MetaImage or GIPL file; None for files with another ending.

    Raises:
        VolumeFileError: there is no such header, its voxels lie in a file elsewhere, or they need more memory than
            the machine has.
        OSError: the file cannot be opened.
    """
    name = path.name.lower()
    readers = {(".nii", ".nii.gz"): _nifti, (".nrrd", ".nhdr"): _nrrd, (".mha", ".mhd"): _meta, (".gipl",): _gipl}
    reader = next((reader for endings, reader in readers.items() if name.endswith(endings)), None)
    if reader is None:
        return None
    if not path.stat().st_size:
        raise VolumeFileError("the file is empty")
    header = reader(path)
    if not header.size or min(header.size) < 1:
        raise VolumeFileError(f"the header declares the size {' x '.join(map(str, header.size)) or '0'}")
    require_memory(header.bytes if header.bytes is not None else math.prod(header.size))
    return header


def require_whole(header: VolumeHeader, finite: bool = True) -> None:
    """See whether all voxels that the header declares are there, undamaged and, in a NIfTI file, finite.

    Args:
        header: from `read_header`.
        finite: look for NaN and infinite values in NIfTI files, which ITK would return as 0.

    Raises:
        VolumeFileError: voxels are missing, or the compressed data are damaged.
        NotFiniteError: values are NaN or infinite.
        OSError: the file cannot be read.
    """
    floats = np.dtype(header.floats) if header.floats and finite else None
    declared = header.bytes
    found = bad = 0
    if header.packing is None and floats is None:
        found = max(0, header.data.stat().st_size - header.offset)
    else:
        numbers = b""
        for block in _voxels(header):
            if floats is not None and declared is not None:
                numbers += block[: max(0, declared - found)]
                values = np.frombuffer(numbers, floats, len(numbers) // floats.itemsize)
                numbers = numbers[values.nbytes :]
                bad += values.size - np.count_nonzero(np.isfinite(values))
            found += len(block)
    if declared is not None and found < declared:
        raise VolumeFileError(
            f"it is cut off: {found:,} bytes of voxels are there, and its header declares {declared:,}; get the file "
            "again"
        )
    if bad:
        of = math.prod(header.size)
        raise NotFiniteError(f"{bad} of {of} values are not finite (NaN or infinite)")


def require_memory(needed: int) -> None:
    """Raise VolumeFileError if so many bytes are more than the machine's memory."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        there = 1 << 40
    if needed > there:
        raise VolumeFileError(
            f"its header declares {needed // 10**9:,} GB of numbers, and this machine has {there / 1e9:,.0f} GB of "
            "memory; is it damaged?"
        )


def _voxels(header: VolumeHeader) -> Iterator[bytes]:
    """The unpacked voxels, piece by piece, up to the end of the file (where the checksums are)."""
    nifti = header.image_io == "NiftiImageIO"
    with _unpacking(), header.data.open("rb") as file:
        file.seek(0 if nifti and header.packing else header.offset)
        if header.packing in ("gzip", "zlib"):
            packed = header.packed or header.data.stat().st_size
            before = header.offset if nifti else 0
            for piece in _unpacked(file, packed, members=header.packing == "gzip"):
                yield piece[before:]
                before = max(0, before - len(piece))
            return
        stream = bz2.BZ2File(file) if header.packing else file
        while block := stream.read(_BLOCK):
            yield block


@contextmanager
def _unpacking() -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise VolumeFileError(f"its compressed data are cut off or damaged ({error}); get the file again") from error


def _unpacked(file: IO[bytes], size: int, members: bool) -> Iterator[bytes]:
    """What is in a zlib stream of at most `size` bytes, which has its checksum at the end, in pieces of any length.

    With `members` a gzip file, whose members follow upon each other; what follows upon the last is left alone (padding
    to a block of a tape, for example), as zlib's own reader of such files does, and so ITK.

    Raises:
        EOFError, zlib.error: it is cut off or damaged.
    """
    # 15 bits, and gzip's header (31) or, as MetaIO has it, zlib's or gzip's (47)
    bits = 31 if members else 47
    stream, packed = zlib.decompressobj(bits), b""
    while True:
        if len(packed) < 2:  # it takes two bytes to know another member from padding
            more = file.read(min(size, 1 << 16))
            size -= len(more)
            packed += more
        if stream.eof:
            if not members or packed[:2] != _GZIP_MAGIC:
                return
            stream = zlib.decompressobj(bits)
        elif not packed:
            raise EOFError("the end is missing")
        yield stream.decompress(packed, _BLOCK)
        packed = stream.unused_data if stream.eof else stream.unconsumed_tail


def _data_file(path: Path, name: str) -> Path:
    """The data file that a header names, which has to lie in the header's folder (or below it).

    The name alone decides: where the files are links (DataLad, git-annex, DVC), the voxels lie elsewhere.
    """
    many = "%" in name  # "slice%03d.raw 1 20 1", a format that is handed to printf
    if many and not re.fullmatch(r"[^%]*%(0?\d{1,2})?d[^%]*", name):
        raise VolumeFileError(f'its header is damaged where it names the files with the voxels ("{name}")')
    if many and any(len(number) > 6 for number in name.split()[1:]):
        raise VolumeFileError(f'its header names millions of files with the voxels ("{name}")')
    name = name.split()[0] if many else name
    if not name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise VolumeFileError("its header is damaged where it names the file with the voxels")
    parts = PureWindowsPath(name)  # both kinds of slashes
    if parts.drive or parts.root or ".." in parts.parts:
        raise VolumeFileError(
            f'its header says that the voxels are in "{name}", which is not in its own folder; only files that lie '
            "there are read: put it beside the header and have the header name it without a folder"
        )
    data = path.parent / name
    if not many and not data.is_file():
        raise VolumeFileError(f'its header says that the voxels are in "{name}", and that file is missing')
    return data


def _nifti(path: Path) -> VolumeHeader:
    from nibabel.nifti1 import Nifti1Header, data_type_codes
    from nibabel.nifti2 import Nifti2Header

    plain = path.with_name(path.name[:-3])
    if path.name.lower().endswith(".gz") and plain.exists():
        raise VolumeFileError(f"{plain.name} lies beside it, and ITK would read that file instead; move one of them")
    with _unpacking(), path.open("rb") as file:
        raw = file.read(540)
        packed = raw[:2] == _GZIP_MAGIC
        if packed:
            file.seek(0)
            raw = b""
            for piece in _unpacked(file, path.stat().st_size, members=True):
                raw += piece
                if len(raw) >= 540:
                    break
    for kind, order in product((Nifti1Header, Nifti2Header), "<>"):
        header = kind(raw.ljust(540)[: kind.sizeof_hdr], order, check=False)
        if len(raw) >= kind.sizeof_hdr == header["sizeof_hdr"]:
            break
    else:
        raise VolumeFileError("it does not begin with a NIfTI header")
    offset, slope, intercept = (float(header[name]) for name in ("vox_offset", "scl_slope", "scl_inter"))
    axes, *extents = header["dim"].tolist()
    if not bytes(header["magic"]).startswith(b"n+"):
        raise VolumeFileError("it is the header of a pair (.hdr, .img) and has no voxels; save it as one file")
    if not 1 <= axes <= 7 or not abs(offset) < 1 << 31:
        raise VolumeFileError(f"its NIfTI header is damaged ({axes} axes, voxels from byte {offset:g} on)")
    code = int(header["datatype"])
    voxel = header.get_data_dtype() if code in data_type_codes else np.dtype("V0")
    if voxel.kind == "c" or not voxel.itemsize:
        what = "complex numbers" if voxel.kind == "c" else f"numbers of an unknown kind (NIfTI's datatype {code})"
        raise VolumeFileError(f"it has {what}; integers or floats are expected")
    # NaN as slope says that nothing is scaled (nibabel writes it so); a slope without its intercept says nothing
    if math.isinf(slope) or (math.isfinite(slope) and slope != 0 and not math.isfinite(intercept)):
        raise VolumeFileError(f"its NIfTI header scales the values by scl_slope {slope:g} and scl_inter {intercept:g}")
    size = tuple(max(1, extent) if axis else extent for axis, extent in enumerate(extents[:axes]))
    floats = voxel.str if voxel.kind == "f" else ""
    data_bytes, begin = math.prod(size) * voxel.itemsize, max(348, int(offset))
    return VolumeHeader(size, path, "NiftiImageIO", data_bytes, begin, "gzip" if packed else None, floats)


def _nrrd(path: Path) -> VolumeHeader:
    with path.open("rb") as file:
        raw = file.read(_HEADER)
    if not raw.startswith(b"NRRD"):
        raise VolumeFileError("it does not begin with a NRRD header")
    end = re.search(rb"\r?\n\r?\n|\r\r", raw)  # the blank line
    lines = re.split(rb"\r\n|\n|\r", raw[: end.start() if end else len(raw)])
    texts = [os.fsdecode(line).strip() for line in lines]
    fields: dict[str, str] = {}
    listed: list[str] = []
    for number, text in enumerate(texts):
        key, colon, value = text.partition(":")
        if colon and not text.startswith("#") and not value.startswith("="):
            key = key.strip().lower().replace(" ", "")
            fields.setdefault(key, value.strip())
            if key == "datafile":
                if value.strip().upper().startswith("LIST"):
                    listed = [name for name in texts[number + 1 :] if name]
                    break
                listed.append(value.strip())
    if not listed and end is None:
        raise VolumeFileError("it ends within its NRRD header; get the file again")
    several = len(listed) > 1 or any("%" in name for name in listed)
    names = [_data_file(path, name) for name in listed]
    data = names[0] if names and not several else path
    encoding = fields.get("encoding", "").lower()
    packing = {"gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}.get(encoding)
    skips = any(fields.get(key, "0") != "0" for key in ("lineskip", "byteskip"))
    size, data_bytes = _declared(path, "NrrdImageIO")
    if several or skips or (packing is None and encoding != "raw"):
        return VolumeHeader(size, data, "NrrdImageIO")
    offset = 0 if listed else end.end() if end else len(raw)
    return VolumeHeader(size, data, "NrrdImageIO", data_bytes, offset, packing)  # type: ignore[arg-type]


def _meta(path: Path) -> VolumeHeader:
    # by hand: damaged headers crash MetaIO, and so ITK
    with path.open("rb") as file:
        raw = file.read(_HEADER)
    # the first mention is the one that MetaIO acts upon, so it has to be an entry of its own
    before, mention, after = raw.partition(b"ElementDataFile")
    *lines, indent = re.split(rb"[\r\n]", before)
    match = re.match(rb"[ \t]*[=:][ \t]*([^\r\n]*)(\r\n|\n|\r|$)", after)
    if match is None or indent.strip(b" \t"):
        raise VolumeFileError("it does not begin with a MetaImage header (ElementDataFile)")
    pairs = (re.split("[=:]", os.fsdecode(line), maxsplit=1) for line in lines)
    fields = {key.strip(): value[0].strip() for key, *value in pairs if value}
    try:
        size = tuple(int(part) for part in fields.get("DimSize", "").split())
        values = int(fields.get("ElementNumberOfChannels", "1"))
        skip = int(fields.get("HeaderSize", "0"))
        packed_bytes = int(fields.get("CompressedDataSize", "0"))
    except ValueError:
        raise VolumeFileError("its MetaImage header is damaged (DimSize, HeaderSize, CompressedDataSize)") from None
    name = os.fsdecode(match[1]).strip()
    local = name.upper() == "LOCAL"
    names = [] if local else [name]
    if name.upper().startswith("LIST"):
        names = [os.fsdecode(line).strip() for line in after[match.end() :].splitlines() if line.strip()]
    files = [_data_file(path, each) for each in names]
    several = names != [name] or "%" in name
    data = path if several else files[0]
    one = _META_BYTES.get(re.sub(r"^MET_U?|_ARRAY$", "", fields.get("ElementType", "")))
    text = fields.get("BinaryData", "").upper() not in ("TRUE", "1")
    packed = fields.get("CompressedData", "").upper() in ("TRUE", "1")
    if packed and local and packed_bytes < 1:  # ITK would take the header for voxels
        raise VolumeFileError("its MetaImage header has no CompressedDataSize; save the file anew")
    if (several and not local) or text or one is None or skip > 0:
        return VolumeHeader(size, data, "MetaImageIO")
    offset = len(before + mention) + match.end() if local else 0
    data_bytes = math.prod(size) * values * one
    packing: Literal["zlib"] | None = "zlib" if packed else None
    return VolumeHeader(size, data, "MetaImageIO", data_bytes, offset, packing, packed=max(0, packed_bytes))


def _gipl(path: Path) -> VolumeHeader:
    with path.open("rb") as file:
        raw = file.read(256)
    if len(raw) < 256 or raw[252:] not in _GIPL_MAGIC:
        raise VolumeFileError("it does not begin with a GIPL header")
    size, data_bytes = _declared(path, "GiplImageIO")
    return VolumeHeader(size, path, "GiplImageIO", data_bytes, 256)


def _declared(path: Path, image_io: str) -> tuple[tuple[int, ...], int]:
    """Number of voxels along x, y, ... and bytes of all, as ITK understands a header that names no file elsewhere."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    try:
        reader.ReadImageInformation()
        # of one component: a header may claim any number of them
        one = sitk.Image([1, 1], reader.GetPixelID(), 1)
    except RuntimeError as error:
        raise VolumeFileError(f"ITK cannot read its header ({str(error).strip().splitlines()[-1]})") from error
    size = reader.GetSize()
    return size, math.prod(size) * reader.GetNumberOfComponents() * sitk.GetArrayViewFromImage(one).nbytes
