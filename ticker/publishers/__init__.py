"""Where payloads leave the process."""
