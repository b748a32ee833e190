"""HTTP in, domain calls and channel sends out; one blueprint a file."""
