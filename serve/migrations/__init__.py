"""How a ledger comes to its present tables, step by step; Alembic runs them when a ledger is opened."""
