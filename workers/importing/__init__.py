"""How a CSV file becomes a table: its encoding, its records, its columns, and the ledger of how far an import is."""
