"""Finds what compiles kernels at run time, and proves that it does: for check.sh.

    python cuda_tree.py FOLDER

Takes the toolkit in CUDA_PATH, /usr/local/cuda or /opt/cuda if it has NVRTC and all headers, else the wheels of this
Python's environment, whose headers are linked into FOLDER/include. A kernel that includes every header is compiled;
that needs no card. Prints two assignments for a shell, CUDA_PATH and LD_LIBRARY_PATH; ends with 2 and says what is
missing and how to get it.
"""

import ctypes
import os
import shlex
import sys
from pathlib import Path

# What the kernels of cubecl include, and the wheel that has it: for CUDA 13, for CUDA 12.
HEADERS = {
    "cuda_fp16.h": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
    "cuda_bf16.h": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
    "mma.h": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
    "crt/mma.h": ("nvidia-cuda-crt", "nvidia-cuda-nvcc-cu12"),
    "cooperative_groups.h": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
    "cuda/barrier": ("nvidia-cuda-cccl", "nvidia-cuda-cccl-cu12"),
    "nv/target": ("nvidia-cuda-cccl", "nvidia-cuda-cccl-cu12"),
}
NVRTC = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")
# As burn's kernels are compiled for a Hopper card, with what the tensor cores need.
KERNEL = "".join(f"#include <{name}>\n" for name in HEADERS if name != "crt/mma.h") + (
    'extern "C" __global__ void probe(float* out) { out[threadIdx.x] = __bfloat162float(__float2bfloat16(1.0f)); }\n'
)


def missing_headers(root):
    include = Path(root) / "include"
    places = (include, include / "cccl")
    return [name for name in HEADERS if not any((place / name).is_file() for place in places)]


def nvrtc_in(folders):
    """The compiler's library: the newest name in the first folder that has one."""
    for folder in folders:
        found = sorted(path for path in Path(folder).glob("libnvrtc.so*") if path.is_file())
        if found:
            return found[-1]
    return None


def toolkit():
    """Root and library folder of a complete toolkit; `None` if there is none."""
    roots = [os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    for root in (Path(root) for root in roots if root):
        folders = [root / "lib64", root / "lib", root / "targets" / "x86_64-linux" / "lib"]
        library = nvrtc_in(folders)
        if library is not None and not missing_headers(root):
            return root, [library.parent], library
    return None


def wheels():
    """The folders of NVIDIA's wheels, with `include` or `lib` in them."""
    try:
        import nvidia
    except ImportError:
        return []
    return [folder for place in nvidia.__path__ for folder in sorted(Path(place).iterdir()) if folder.is_dir()]


def link(source, target):
    """Links the files of a folder into another, which may have some already."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            link(entry, target / entry.name)
        elif not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry.resolve())


def merged(folder):
    """Root, library folders and compiler of the wheels."""
    found = wheels()
    for part in found:
        if (part / "include").is_dir():
            link(part / "include", folder / "include")
    libraries = [part / "lib" for part in found if (part / "lib").is_dir()]
    library, missing = nvrtc_in(libraries), missing_headers(folder)
    needed = [HEADERS[name] for name in missing] + ([NVRTC] if library is None else [])
    if needed:
        lacking = ", ".join(missing + (["libnvrtc"] if library is None else []))
        give_up(f"there is no complete CUDA toolkit, and the wheels lack {lacking}", needed)
    return folder, libraries, library


def give_up(found, needed):
    newer, older = (" ".join(sorted({pair[index] for pair in needed})) for index in (0, 1))
    print(f"cuda_tree.py: {found}", file=sys.stderr)
    if needed:
        print(f"  CUDA 13: {sys.executable} -m pip install {newer}", file=sys.stderr)
        print(f"  CUDA 12: {sys.executable} -m pip install {older}", file=sys.stderr)
    sys.exit(2)


def complaint(root, library):
    """What NVRTC says about the kernel; empty if it compiles."""
    nvrtc = ctypes.CDLL(str(library))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), KERNEL.encode(), None, 0, None, None) != 0:
        return "nvrtcCreateProgram failed"
    include = Path(root) / "include"
    words = ["--gpu-architecture=sm_90a"] + [f"--include-path={path}" for path in (include, include / "cccl")]
    options = (ctypes.c_char_p * len(words))(*[word.encode() for word in words])
    if nvrtc.nvrtcCompileProgram(program, len(words), options) == 0:
        return ""
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.value.decode(errors="replace").strip()[:2000] or "no reason is given"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root, libraries, library = toolkit() or merged(Path(sys.argv[1]))
    said = complaint(root, library)
    if said:
        give_up(f"{library} does not compile a kernel with the headers of {root}: {said}", [])
    own = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    print(f"CUDA_PATH={shlex.quote(str(root))}")
    print(f"LD_LIBRARY_PATH={shlex.quote(':'.join([*map(str, libraries), *own]))}")


if __name__ == "__main__":
    main()
