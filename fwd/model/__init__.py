"""Values only: addresses, identities, rules, rows of the tables; enums.py is generated."""
