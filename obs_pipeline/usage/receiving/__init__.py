"""Usage that is sent here over HTTP, and kept until it lands."""
