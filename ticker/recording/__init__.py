"""Raw frames in a file, and out of it again."""
