"""What there is to stream: the day's instruments, and those of days before."""
