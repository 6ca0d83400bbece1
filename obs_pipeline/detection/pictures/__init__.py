"""Small pictures of what was found, as SVG: values in, text out. Nothing is decided or read here."""
