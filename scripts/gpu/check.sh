#!/usr/bin/env bash
# Everything about an NVIDIA card that the test suite cannot say: one command on a machine that has one. It needs no
# Rust, no checkout and no network there.
#
#   scripts/gpu/check.sh --populate BINARY --python VENV/bin/python [--out DIR] [--parts A,B] [--quick]
#
# It runs `populate doctor`; compares pictures and loss curves of card and processor; proves that a training learns, is
# resumed after SIGTERM, and that dose 0 is the base; that the second start compiles and tunes nothing; that memory does
# not grow; measures the card's bf16 matrix products and the share of that rate which a step reaches; and runs the rows
# of scripts/bench/side_by_side. The tables are printed and written to DIR/report.md (DIR is `gpu-check` if absent).
# Exit code: 0 if every promise is kept, 1 if one is broken or a part failed to run, 2 if something is missing. --quick takes
# some minutes instead of an hour and leaves out SDXL. --parts runs only some of these, in the order given:
# start,parity,learns,resume,zero,flat,rates,side. What earlier calls left in DIR is kept and reported with them;
# `start` empties the cache of kernels, so it comes first. DIR/scratch grows to 20 GB, --quick to 5.
#
# What has to be there:
#
# 1. The binary, made on a machine with Rust, no CUDA and a glibc no newer than that of the card's machine. Its profile
#    strips it. The version of CUDA is that of the oldest driver it has to meet, in the form MMmm0:
#      CUDARC_CUDA_VERSION=12080 cargo build --profile dist --locked --bin populate --features cli/cuda
#    and these files around it, 2 MB beside the binary, unpacked anywhere:
#      tar -czf gpu-check.tar.gz scripts/bench scripts/gpu scripts/interchange scripts/golden/*.py \
#          scripts/golden/tokenizer recipes/*.yaml datasets/concepts checkpoints/data/clip-merges.txt \
#          -C target/dist populate
#
# 2. A Python environment with the peer, made where there is a network, with the same Python and system as the machine:
#      python3 -m venv VENV && VENV/bin/pip install torch diffusers peft transformers accelerate safetensors pillow
#    If the machine has no CUDA toolkit, also the headers that torch does not bring; without crt/mma.h every kernel
#    compiles but those of the tensor cores:
#      CUDA 13: VENV/bin/pip install nvidia-cuda-crt nvidia-cuda-cccl
#      CUDA 12: VENV/bin/pip install nvidia-cuda-nvcc-cu12 nvidia-cuda-cccl-cu12
#    of the version that torch has of nvidia-cuda-runtime (`pip list` shows it). torch.compile needs a C compiler.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() { sed -n '2,/^# What has/{/^# What has/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }
give_up() {
    printf 'check.sh: %s\n' "$1" >&2
    exit 2
}
populate='' python='' out=gpu-check parts=''
rest=()
while [ $# -gt 0 ]; do
    case $1 in
        --populate | --python | --out | --parts)
            [ $# -ge 2 ] || give_up "$1 needs a value"
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        --quick)
            rest+=(--quick)
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) give_up "unknown argument \`$1\`; --help shows what there is" ;;
    esac
done
[ -z "$parts" ] || rest+=(--parts "$parts")
[ -n "$populate" ] || give_up "--populate BINARY is missing; the head of this script says how it is made"
[ -n "$python" ] || give_up "--python VENV/bin/python is missing; the head of this script says how it is made"
[ -x "$populate" ] || give_up "--populate: \`$populate\` is no program"
[ -x "$python" ] || give_up "--python: \`$python\` is no program"
# The path of an environment's Python says which environment it is: it must not be resolved.
populate=$(cd "$(dirname "$populate")" && pwd)/$(basename "$populate")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Headers and run-time compiler: a toolkit that has all of them, else the wheels, merged into one tree.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
assigned=$("$python" "$here/cuda_tree.py" "$tree") || exit 2
eval "$assigned"
export CUDA_PATH LD_LIBRARY_PATH
export HF_HUB_OFFLINE=1 NO_COLOR=1

status=0
"$python" "$here/check.py" --populate "$populate" --out "$out" ${rest[@]+"${rest[@]}"} || status=$?
exit "$status"
