"""What Assay promises: records, contracts, policies, manifests, verdicts and digests. Pure, no I/O."""
