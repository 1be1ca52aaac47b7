"""What is measured: ``python -m benchmarks.NAME`` runs one benchmark and records it."""
