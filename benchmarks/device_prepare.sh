#!/usr/bin/env bash
# Put into _build/device what benchmarks/device.sh needs on a machine with a GPU and no network:
#
#   benchmarks/device_prepare.sh PACKS
#
# PACKS is a folder with SHA256SUMS and the packs that it lists: cifar10.tar.xz, gtsrb-core.tar.xz and
# tinyimagenet64-sample.tar.xz, of image files NAME/train/CLASS/FILE and NAME/test/CLASS/FILE. The wheels come from the
# network. Then copy the working tree and _build/device to that machine; together they take at most 64 MiB.
set -euo pipefail
packs=$(realpath "${1:?give the folder of the packs}")
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m benchmarks.device prepare "$packs"
