module countersign.dev/examples/proofs

go 1.26
