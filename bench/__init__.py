"""Benchmarks: what Headway costs beside what its users would use otherwise, in one run (`make bench`)."""
