"""Files of any shape, read as canonical events through column mappings."""
