#!/bin/sh
# Compares Ringtail's float32 matrix product with OpenBLAS, in one run with
# alternating rounds, and prints JSON, one object a shape. Needs Go, a C compiler
# and OpenBLAS with its headers (Debian: libopenblas0-pthread, libopenblas-dev).
# Arguments go to bench/gemmcompare, for example -rounds 25 -threads 1,2.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
${CC:-cc} -O2 -Wall -o "$tmp/openblas_gemm" bench/peers/openblas_gemm.c -lopenblas
CGO_ENABLED=0 go build -o "$tmp/gemmcompare" ./bench/gemmcompare
"$tmp/gemmcompare" -peer "$tmp/openblas_gemm" "$@"
