"""How accurate and how fast: evaluation, timing, records, tables."""
