"""The C library seen from Python; binding.py is the only importer of the extension."""
