"""The rooms import downwards only, and what is optional or heavy is imported in one place each (DESIGN.md, "Rooms")."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "swin_umamba_nnunet"
ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))

# Lowest first; rooms of one floor do not import each other.
FLOORS = (
    ("settings", "_text"),
    ("catalogue", "__init__"),
    ("ops",),
    ("blocks",),
    ("networks",),
    ("pretrained", "evaluation", "datasets"),
    ("trainers", "pictures"),
    ("cost", "models"),
    ("nnunet_ext", "benchmark"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
BASEMENT = 1  # further single files of the package (the start-up line) lie below all rooms too
TOP_LEVEL = {*FLOOR, *(path.stem for path in (ROOT / PACKAGE).glob("*.py"))}
ABSENT = (
    "nnunetv2",
    "numba",
    "llvmlite",
    "triton",
    "mamba_ssm",
    "timm",
    "torchvision",
    "batchgenerators",
    "dynamic_network_architectures",
)


def room_of(parts):
    """Room of a module inside the package, e.g. ("ops", "_scan") -> "ops"; the package itself is "__init__"."""
    return parts[0] if parts else "__init__"


def floor_of(room):
    return FLOOR.get(room, BASEMENT)


def imports_of(path):
    """Dotted names a file imports anywhere in it, `importlib.import_module` with a literal beginning included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import; name the whole module"
            found.update((*node.module.split("."), alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            literal = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                found.add(tuple(literal.value.split(".")))
    return found


def importers(library):
    return [path.relative_to(ROOT).as_posix() for path in FILES if any(name[0] == library for name in imports_of(path))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / PACKAGE)))
def test_imports_point_down(path):
    here = room_of(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
    for name in imports_of(path):
        if name[0] != PACKAGE:
            continue
        there = room_of(name[1:]) if name[1:2] and name[1] in TOP_LEVEL else "__init__"
        assert there == here or floor_of(there) < floor_of(here), f"{here} imports {'.'.join(name)}"


def test_every_folder_is_a_known_room():
    folders = {path.relative_to(ROOT / PACKAGE).parts[0] for path in FILES if path.parent != ROOT / PACKAGE}
    assert folders <= set(FLOOR)


@pytest.mark.parametrize(
    ("libraries", "files"),
    [
        (("numba",), {"_numba.py", "_numba_vectors.py"}),
        (("triton",), {"_triton_kernels.py", "_triton_glue_kernels.py"}),
        (("mamba_ssm", "selective_scan_cuda"), {"_mamba_ssm.py"}),
    ],
)
def test_a_backend_library_is_imported_where_its_kernels_are(libraries, files):
    where = {path for library in libraries for path in importers(library)}
    assert where
    assert where <= {f"{PACKAGE}/ops/{name}" for name in files}


def test_only_the_door_and_what_drives_nnunet_import_it():
    rooms = {path.split("/")[1] for path in importers("nnunetv2")}
    assert rooms.isdisjoint({"ops", "blocks", "networks", "pretrained", "catalogue.py", "__init__.py"})


def test_the_basement_imports_no_torch():
    for path in importers("torch"):
        assert floor_of(path.split("/")[1].removesuffix(".py")) > BASEMENT, path


def test_networks_import_nothing_heavy():
    """Import and forward pass work where torch is all there is; a backend that is not named is an error, then."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {ABSENT!r}:
            raise ImportError(name + ' is hidden by this test')
import torch
loaded = [name for name in {ABSENT!r} if name in sys.modules]
for name in [n for n in sys.modules if n.split('.')[0] in loaded]: del sys.modules[name]
sys.meta_path.insert(0, Absent())
from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD
import swin_umamba_nnunet.blocks, swin_umamba_nnunet.ops, swin_umamba_nnunet.pretrained
from swin_umamba_nnunet.ops import BackendUnavailableError
network = SwinUMambaD(1, 2, depths=(1, 1), width=8, d_state=2, backend='reference')
assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)
try:
    SwinUMambaD(1, 2, depths=(1, 1), width=8, d_state=2)(torch.zeros(1, 1, 4, 4))
except BackendUnavailableError as error:
    assert 'numba' in str(error), error
else:
    raise AssertionError('no error')
assert not [name for name in {ABSENT!r} if name in sys.modules]
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
