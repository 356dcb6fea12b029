#!/bin/sh
# The compiler, for cargo's RUSTC_WRAPPER: what reads bytes from outside is compiled so that libFuzzer sees which branches an
# input took. Stable Rust has no option for it, but LLVM has a pass. The rest (tokio, kube, …) is left alone: its branches would
# be noise, and cost at every input. serde_json and base64 are generic, and so compiled with those who call them.
name=
previous=
for argument in "$@"; do
    [ "$previous" = --crate-name ] && name=$argument
    previous=$argument
done
case $name in
countersign_* | asn1_rs | der_parser | jsonwebtoken | nom | sfv | x509_parser)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
