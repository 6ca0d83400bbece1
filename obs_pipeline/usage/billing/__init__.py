"""Bills of sellers: pulled or read from files, and compared with what was captured."""
